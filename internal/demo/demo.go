// Package demo shows what a cache does, on a real database: one pattern a scene,
// with figures measured while it runs, and with what must be true checked and
// not only said. It ends by comparing every copy in memory with the database.
//
// A scene is a file or two. It opens tables of its own, does its work, and tells
// about it three times: in sentences for people, as figures for machines, and as
// expectations, one of which not being met makes the whole demo fail. What is
// expected never depends on how fast the machine is.
package demo

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"time"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/text"
)

// Options say where the demo plays, and to whom.
type Options struct {
	Database Database
	// Out takes what people read. Terminal says that it understands colours and
	// a line that is written over.
	Out      io.Writer
	Terminal bool
	// Scale multiplies the work; 1 takes about twenty seconds.
	Scale float64
	// Tamper changes a row behind the cache's back before the comparison, which
	// must find it.
	Tamper bool
}

// Database is what the demo needs to know of a database.
type Database struct {
	// Name is what the demo calls it.
	Name string
	// Prefix begins the names of all tables that the demo opens. They are the
	// caller's to remove.
	Prefix string
	// Users, Products and Accounts open a key-value table, and make it.
	Users    Opener[User]
	Products Opener[Product]
	Accounts Opener[Account]
	// Plain opens the same database without Lockstep, with so many connections
	// at most. SQL is what it understands there.
	Plain func(connections int) (*sql.DB, error)
	SQL   SQL
	// Unprepared: what Plain's connections prepare may not be there for their next
	// statement.
	Unprepared bool
}

// Store is a table's store.
type Store[V any] = lockstep.Store[string, V]

// Opener opens a table of values of one type.
type Opener[V any] func(ctx context.Context, table string) (Store[V], error)

// Result is the demo for machines.
type Result struct {
	Database   string        `json:"database"`
	Scenes     []*Scene      `json:"scenes"`
	Comparison []*Comparison `json:"comparison"`
	// Checks is the number of expectations, Unmet those that were not met, and
	// Differences the rows of which memory and the database said something else.
	Checks      int           `json:"checks"`
	Unmet       int           `json:"unmet"`
	Differences int           `json:"differences"`
	Agrees      bool          `json:"agrees"`
	Elapsed     time.Duration `json:"elapsed_ns"`
}

// Scene is what became of one scene.
type Scene struct {
	Name    string        `json:"name"`
	Title   string        `json:"title"`
	Figures any           `json:"figures"`
	Checks  []Check       `json:"checks"`
	Elapsed time.Duration `json:"elapsed_ns"`

	play func(ctx context.Context, s *stage) (figures any, err error)
}

// Check is something that must be true, and whether it was.
type Check struct {
	What string `json:"what"`
	Met  bool   `json:"met"`
}

func scenes() []*Scene {
	return []*Scene{
		{Name: "write-through", Title: "Write-through: the database first, then memory", play: writeThrough},
		{Name: "retry", Title: "Retries: a database that fails now and then", play: retries},
		{Name: "versions", Title: "Versions: two people change the same row", play: versions},
		{Name: "group-commit", Title: "Group commit: many writers at once", play: batches},
		{Name: "transactions", Title: "Transactions: all of it, or nothing", play: transfers},
		{Name: "unknown-outcome", Title: "Lost replies: was it written or not?", play: doubt},
		{Name: "together", Title: "All of it together, on one cache", play: together},
	}
}

// Run plays all scenes and compares. An error means that the demo could not be
// played to its end, or that Out could not be written to; what is wrong with the
// cache is in the Result.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	began := time.Now()
	plain, err := o.Database.Plain(2)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	s := &stage{
		page:    page{out: o.Out, terminal: o.Terminal, unwanted: func() error { return context.Cause(ctx) }},
		options: o,
		plain:   plain,
		result:  &Result{Database: o.Database.Name},
	}
	defer func() {
		if closing := s.close(ctx); err == nil {
			err = closing
		}
	}()
	err = s.play(ctx)
	switch {
	case s.page.err != nil:
		return nil, s.page.err
	case ctx.Err() != nil:
		// Whatever else went wrong went wrong because of it.
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	}
	s.result.Elapsed = time.Since(began)
	s.verdict()
	return s.result, s.page.err
}

// play plays all scenes and compares.
func (s *stage) play(ctx context.Context) error {
	s.line(s.styled(bold, "Lockstep keeps a cache and a database in step. Here it is at work."))
	s.say("A write goes to the database first, and to memory once the database has committed it. A read is answered from memory, and by the database when memory has nothing. The rest is about what can go wrong.")
	s.say("Every figure below was measured in this run, and every line that begins with “ok” was checked in it. The database:")
	s.show("l", []string{s.options.Database.Name})
	for i, scene := range scenes() {
		if err := s.perform(ctx, i+1, scene); err != nil {
			return fmt.Errorf("scene %d, %s: %w", i+1, scene.Name, err)
		}
	}
	if err := s.compare(ctx); err != nil {
		return fmt.Errorf("comparing: %w", err)
	}
	return nil
}

// perform plays one scene.
func (s *stage) perform(ctx context.Context, number int, scene *Scene) (err error) {
	began := time.Now()
	s.scene = scene
	s.result.Scenes = append(s.result.Scenes, scene)
	s.headline(fmt.Sprintf("%d  %s", number, scene.Title))
	if s.page.err != nil {
		return s.page.err
	}
	scene.Figures, err = scene.play(ctx, s)
	scene.Elapsed = time.Since(began)
	return err
}

func (s *stage) verdict() {
	r := s.result
	for _, scene := range r.Scenes {
		r.Checks += len(scene.Checks)
		for _, c := range scene.Checks {
			if !c.Met {
				r.Unmet++
			}
		}
	}
	for _, c := range r.Comparison {
		r.Differences += len(c.Differences)
	}
	r.Agrees = r.Unmet == 0 && r.Differences == 0
	verdict := s.styled(green, "Memory and database agree, row by row.")
	if r.Differences > 0 {
		verdict = s.styled(red, fmt.Sprintf("Memory and database disagree about %s.", text.Plural(r.Differences, "row")))
	}
	s.line("")
	s.line(margin + verdict)
	s.line(fmt.Sprintf("%s%d of %d expectations were met, in %s.", margin, r.Checks-r.Unmet, r.Checks, text.Span(r.Elapsed)))
}
