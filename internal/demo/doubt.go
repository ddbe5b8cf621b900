package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// DoubtFigures are those of the sixth scene.
type DoubtFigures struct {
	Applied    *DoubtFigure `json:"reply_lost"`
	NotApplied *DoubtFigure `json:"request_lost"`

	// Trials are further writes whose answers were lost in one way or another.
	Trials          int `json:"trials"`
	TrialsApplied   int `json:"trials_applied"`
	TrialsUnapplied int `json:"trials_not_applied"`
	Wrong           int `json:"trials_settled_wrongly"`
}

// DoubtFigure is the story of one write.
type DoubtFigure struct {
	Error string `json:"error"`
	// While the outcome was unknown: reads of the key, those that memory answered,
	// and those that the database did.
	Reads      int    `json:"reads_in_doubt"`
	FromMemory uint64 `json:"from_memory"`
	FromTable  uint64 `json:"from_database"`
	// Applied is what Wait told, and Afterwards are the hits of as many reads.
	// Right says that memory and database then had what follows from it.
	Applied    bool   `json:"applied"`
	Afterwards uint64 `json:"hits_afterwards"`
	Right      bool   `json:"right_afterwards"`
}

func doubt(ctx context.Context, s *stage) (any, error) {
	f := &DoubtFigures{Trials: s.some(60, 20)}
	prices, err := openTable(ctx, s, recipe[Product]{name: "prices", open: s.options.Database.Products, faults: true})
	if err != nil {
		return nil, err
	}
	s.say("The worst moment to lose a connection is between a commit and its reply: nobody can say whether the write happened. A fault injector loses the reply of one commit, and the request of another. Both callers get the same answer, because that is all there is to know:")
	if f.Applied, err = loseOne(ctx, s, prices, "sku:reply", "commit 1: lose reply"); err != nil {
		return nil, err
	}
	if f.NotApplied, err = loseOne(ctx, s, prices, "sku:request", "commit 1: lose request"); err != nil {
		return nil, err
	}
	s.quote(f.Applied.Error)
	s.say("From then on memory does not answer for that row, until the cache has found out, in the background, what became of the write. The error's Wait tells.")
	row := func(name string, cell func(*DoubtFigure) string) []string {
		return []string{name, cell(f.Applied), cell(f.NotApplied)}
	}
	s.show("lrr",
		[]string{"", "reply lost", "request lost"},
		row("reads while in doubt", func(d *DoubtFigure) string { return text.Count(d.Reads) }),
		row("  answered from memory", func(d *DoubtFigure) string { return text.Count(d.FromMemory) }),
		row("  answered by the database", func(d *DoubtFigure) string { return text.Count(d.FromTable) }),
		row("what Wait said", func(d *DoubtFigure) string {
			if d.Applied {
				return "applied"
			}
			return "not applied"
		}),
	)
	s.expect(f.Applied.FromMemory == 0 && f.NotApplied.FromMemory == 0, "memory did not answer while it could not know")
	s.expect(f.Applied.Applied && !f.NotApplied.Applied, "Wait told the truth about both")
	s.expect(f.Applied.Right && f.NotApplied.Right, "memory and database then have what it said")
	s.expect(f.Applied.Afterwards > 0 && f.NotApplied.Afterwards > 0, "and memory answers again")
	return f, f.loseMany(ctx, s, prices)
}

// loseOne follows one write whose answer is lost. The settlement is held up
// meanwhile, so that there is a doubt to look at.
func loseOne(ctx context.Context, s *stage, prices *table[Product], key, script string) (*DoubtFigure, error) {
	d := &DoubtFigure{Reads: 5}
	old := productRow(11)
	changed := old
	changed.Price += 250
	if _, err := prices.cache.Set(ctx, key, old); err != nil {
		return nil, err
	}
	settlement := prices.faults.Block(fault.BeforeSettle)
	defer settlement.Pass()
	prices.faults.Play(fault.MustParse(script))
	_, err := prices.cache.Set(ctx, key, changed)
	var lost *lockstep.WriteError
	if !errors.As(err, &lost) || !errors.Is(err, lockstep.ErrUnknownOutcome) {
		return nil, fmt.Errorf("a write whose answer was lost returned: %w", errors.Join(err, errNoDoubt))
	}
	d.Error = err.Error()

	before := prices.cache.Stats()
	for range d.Reads {
		if _, err := prices.cache.Get(ctx, key); err != nil {
			return nil, err
		}
	}
	after := prices.cache.Stats()
	d.FromMemory, d.FromTable = after.Hits-before.Hits, after.Loads-before.Loads

	settlement.Pass()
	if d.Applied, _, err = lost.Wait(ctx); err != nil {
		return nil, err
	}
	want := old
	if d.Applied {
		want = changed
	}
	row, err := prices.stored(ctx, s, key)
	if err != nil {
		return nil, err
	}
	d.Right = row.value == want
	before = prices.cache.Stats()
	for range d.Reads {
		got, err := prices.cache.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		d.Right = d.Right && got == want
	}
	d.Afterwards = prices.cache.Stats().Hits - before.Hits
	return d, nil
}

var errNoDoubt = errors.New("it is not an unknown outcome")

// loseMany loses many answers, in every way that there is.
func (f *DoubtFigures) loseMany(ctx context.Context, s *stage, prices *table[Product]) error {
	prices.faults.Play(fault.MustParse("commit 40%: lose request; commit 50%: lose reply; commit *: lose reply, late"))
	defer prices.faults.Play(fault.Script{})
	done := s.progress("losing replies")
	defer done()
	for i := range f.Trials {
		key, p := productKey(i), productRow(i)
		_, err := prices.cache.Set(ctx, key, p)
		var lost *lockstep.WriteError
		if !errors.As(err, &lost) {
			return fmt.Errorf("a write whose answer was lost returned: %w", errors.Join(err, errNoDoubt))
		}
		applied, _, err := lost.Wait(ctx)
		if err != nil {
			return err
		}
		row, err := prices.stored(ctx, s, key)
		if err != nil {
			return err
		}
		_, err = prices.cache.Get(ctx, key)
		if applied {
			f.TrialsApplied++
		} else {
			f.TrialsUnapplied++
		}
		if applied != row.exists || applied != (err == nil) || applied && row.value != p {
			f.Wrong++
		}
	}
	done()
	s.say("%d more writes lost their answers, some of them while they were still on their way. %d turned out to be applied and %d not.",
		f.Trials, f.TrialsApplied, f.TrialsUnapplied)
	s.expect(f.Wrong == 0 && f.TrialsApplied > 0 && f.TrialsUnapplied > 0, "Wait, memory and database say the same of each of them")
	return nil
}
