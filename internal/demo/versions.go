package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// VersionFigures are those of the third scene.
type VersionFigures struct {
	Read     lockstep.Version `json:"version_read"`
	Won      lockstep.Version `json:"version_written"`
	Found    lockstep.Version `json:"version_in_conflict"`
	Rounds   int              `json:"rounds"`
	Wins     int              `json:"wins"`
	Conflict int              `json:"conflicts"`

	Buyers       int    `json:"buyers"`
	Each         int    `json:"bought_by_each"`
	Updated      int64  `json:"stock_taken_by_update"`
	Blind        int64  `json:"stock_taken_without_conditions"`
	UpdateReruns uint64 `json:"update_reruns"`

	Registered int `json:"registered"`

	Created   lockstep.Version `json:"version_created"`
	Deleted   lockstep.Version `json:"version_deleted"`
	Recreated lockstep.Version `json:"version_created_again"`
}

func versions(ctx context.Context, s *stage) (any, error) {
	f := &VersionFigures{Rounds: s.some(200, 20), Buyers: 32, Each: s.some(10, 3)}
	shelf, err := openTable(ctx, s, recipe[Product]{name: "shelf", open: s.options.Database.Products})
	if err != nil {
		return nil, err
	}
	if err := f.duel(ctx, s, shelf); err != nil {
		return nil, err
	}
	if err := f.buy(ctx, s, shelf); err != nil {
		return nil, err
	}
	if err := f.register(ctx, s, shelf); err != nil {
		return nil, err
	}
	return f, f.recreate(ctx, s, shelf)
}

// duel lets two people change what they have both read.
func (f *VersionFigures) duel(ctx context.Context, s *stage, shelf *table[Product]) error {
	const key = "sku:duel"
	row := productRow(3)
	if _, err := shelf.cache.Set(ctx, key, row); err != nil {
		return err
	}
	done := s.progress("changing prices")
	defer done()
	sound := true
	names := [2]string{"Alice", "Bob"}
	var first string
	for range f.Rounds {
		read, err := shelf.cache.GetEntry(ctx, key)
		if err != nil {
			return err
		}
		var written [2]lockstep.Version
		var conflicts [2]*lockstep.ConflictError
		err = clients(2, func(who int) (err error) {
			mine := read.Value
			mine.Price += int64(who) + 1
			written[who], err = shelf.cache.Set(ctx, key, mine, lockstep.IfVersion(read.Version))
			if errors.As(err, &conflicts[who]) {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		winner := 0
		for who, conflict := range conflicts {
			if conflict != nil {
				f.Conflict++
			} else {
				winner = who
				f.Wins++
			}
		}
		lost := conflicts[1-winner]
		if lost == nil {
			sound = false
			continue
		}
		sound = sound && lost.Exists && lost.Version == written[winner] && written[winner] > read.Version
		if first == "" {
			first = names[winner]
			f.Read, f.Won, f.Found = read.Version, written[winner], lost.Version
		}
	}
	done()
	loser := names[0]
	if first == names[0] {
		loser = names[1]
	}
	s.say("Every row has a version, and every committed change gives it a higher one. Alice and Bob have both read a price and change it at the same moment, each on the condition that the row is still as they read it:")
	s.show("ll",
		[]string{"both read", fmt.Sprintf("version %d", f.Read)},
		[]string{first, fmt.Sprintf("written, version %d", f.Won)},
		[]string{loser, fmt.Sprintf("conflict: the row is at version %d", f.Found)},
	)
	s.say("They did so %s times: %s writes, %s conflicts.", text.Count(f.Rounds), text.Count(f.Wins), text.Count(f.Conflict))
	s.expect(sound && f.Wins == f.Rounds && f.Conflict == f.Rounds, "one of them won each time, and the other was told the version that beat them")
	return nil
}

// buy takes the same stock down in two ways.
func (f *VersionFigures) buy(ctx context.Context, s *stage, shelf *table[Product]) error {
	const careful, careless = "sku:update", "sku:blind"
	full := productRow(5)
	full.Stock = 1000
	for _, key := range []string{careful, careless} {
		if _, err := shelf.cache.Set(ctx, key, full); err != nil {
			return err
		}
	}
	before := shelf.cache.Stats().Reruns
	done := s.progress("selling")
	defer done()
	err := clients(f.Buyers, func(int) error {
		for range f.Each {
			_, err := shelf.cache.Update(ctx, careful, func(p Product, _ bool) (Product, error) {
				p.Stock--
				return p, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = clients(f.Buyers, func(int) error {
		for range f.Each {
			p, err := shelf.cache.Get(ctx, careless)
			if err != nil {
				return err
			}
			p.Stock--
			if _, err := shelf.cache.Set(ctx, careless, p); err != nil {
				return err
			}
		}
		return nil
	})
	done()
	if err != nil {
		return err
	}
	rows, err := readRows[Product](ctx, s, shelf.sql, careful, careless)
	if err != nil {
		return err
	}
	f.UpdateReruns = shelf.cache.Stats().Reruns - before
	f.Updated = full.Stock - rows[careful].value.Stock
	f.Blind = full.Stock - rows[careless].value.Stock
	sold := int64(f.Buyers * f.Each)
	s.say("%d clients each buy %d pieces, one by one, from one stock. Update reads the row, changes it, and writes it only if nobody else has changed it meanwhile. The other way, a read and a write without a condition, is what loses sales:", f.Buyers, f.Each)
	s.show("lrr",
		[]string{"", "sold", "taken from stock"},
		[]string{"Update", text.Count(sold), text.Count(f.Updated)},
		[]string{"Get, then Set", text.Count(sold), text.Count(f.Blind)},
	)
	s.expect(f.Updated == sold, "no update was lost")
	return nil
}

// register lets many create one row.
func (f *VersionFigures) register(ctx context.Context, s *stage, shelf *table[Product]) error {
	var won atomic.Int64
	err := clients(f.Buyers, func(i int) error {
		_, err := shelf.cache.Set(ctx, "sku:unique", productRow(i), lockstep.IfAbsent())
		switch {
		case err == nil:
			won.Add(1)
		case !errors.Is(err, lockstep.ErrConflict):
			return err
		}
		return nil
	})
	f.Registered = int(won.Load())
	s.expect(f.Registered == 1, "of %d clients who created the same row if it was absent, one did", f.Buyers)
	return err
}

// recreate deletes a row and writes it again.
func (f *VersionFigures) recreate(ctx context.Context, s *stage, shelf *table[Product]) (err error) {
	const key = "sku:phoenix"
	if f.Created, err = shelf.cache.Set(ctx, key, productRow(1)); err != nil {
		return err
	}
	if _, err := shelf.cache.Delete(ctx, key); err != nil {
		return err
	}
	gone, err := shelf.stored(ctx, s, key)
	if err != nil {
		return err
	}
	f.Deleted = gone.version
	shelf.cache.Invalidate(key)
	if f.Recreated, err = shelf.cache.Set(ctx, key, productRow(1)); err != nil {
		return err
	}
	_, stale := shelf.cache.Set(ctx, key, productRow(2), lockstep.IfVersion(f.Created))
	s.say("Versions go on growing when a row is deleted and written again, and when memory has forgotten the row in between:")
	tail := func(v lockstep.Version) string { return "version " + strconv.FormatInt(int64(v), 10) }
	s.show("ll",
		[]string{"created", tail(f.Created)},
		[]string{"deleted", tail(f.Deleted)},
		[]string{"created again", tail(f.Recreated)},
	)
	s.expect(f.Created < f.Deleted && f.Deleted < f.Recreated, "each version is higher than the one before")
	s.expect(errors.Is(stale, lockstep.ErrConflict), "who still holds the first version cannot overwrite the new row")
	return nil
}
