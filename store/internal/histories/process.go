package histories

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/history"
)

// A client program in a process of its own is driven call by call from the one that
// records, which notes when it has asked and when it was told: the call took effect
// between the two. Each call has a connection. A function that the call runs, for
// Update and Transact, stays where the recorder is; the other process asks for it over
// the same connection.

// placeVariable tells a process that it is the second one, and where the tables are.
const placeVariable = "LOCKSTEP_HISTORIES_PLACE"

// announces the address that the second process listens on.
const announces = "histories are served at "

// call is what the recorder asks for.
type call struct {
	What   string // setIf, update, transact
	Table  int
	Key    int
	Value  int64
	Expect lockstep.Expect
}

// step is what goes on while a call runs its function. What is, from the second
// process: "run" (with the row that an Update found), "answer", "done" (with the
// call's result), "settled"; from the recorder: "get", "set", "delete" in a
// transaction, and "return" (with what the function returned).
type step struct {
	What    string
	Table   int
	Key     int
	Value   int64
	Exists  bool
	Version lockstep.Version
	Err     *failure
}

// failure is an error on its way.
type failure struct {
	Text     string
	Is       []int                   // indices into named
	Conflict *lockstep.ConflictError // without its key
	Unknown  bool
	// Ref is one more than the number, in a transaction, of the second process's error
	// that it is.
	Ref int
}

var errYours = errors.New("the recorder's own error")

// named are the errors that mean something to a recorder or to a cache.
var named = []error{errYours, lockstep.Keep, lockstep.ErrNotFound, lockstep.ErrInvalid, lockstep.ErrUnavailable,
	lockstep.ErrUnsupported, lockstep.ErrClosed, lockstep.ErrInTransaction, context.Canceled, context.DeadlineExceeded}

func packed(err error) *failure {
	if err == nil {
		return nil
	}
	f := &failure{Text: err.Error(), Unknown: errors.Is(err, lockstep.ErrUnknownOutcome)}
	for i, name := range named {
		if errors.Is(err, name) {
			f.Is = append(f.Is, i)
		}
	}
	if came := (*failure)(nil); errors.As(err, &came) {
		f.Ref = came.Ref
	}
	if c := (*lockstep.ConflictError)(nil); errors.As(err, &c) {
		f.Conflict = &lockstep.ConflictError{Exists: c.Exists, Version: c.Version}
	}
	return f
}

func (f *failure) Error() string { return "in the other process: " + f.Text }

func (f *failure) Unwrap() (errs []error) {
	for _, i := range f.Is {
		errs = append(errs, named[i])
	}
	if f.Conflict != nil {
		errs = append(errs, f.Conflict)
	}
	return errs
}

// pending is an unknown outcome, which the second process will tell.
type pending struct {
	*failure
	settled chan struct{}
	outcome step
}

func (p *pending) Is(target error) bool { return target == lockstep.ErrUnknownOutcome }

func (p *pending) Wait(ctx context.Context) (applied bool, version lockstep.Version, err error) {
	select {
	case <-p.settled:
		if p.outcome.Err != nil {
			return false, 0, p.outcome.Err
		}
		return p.outcome.Exists, p.outcome.Version, nil
	case <-ctx.Done():
		return false, 0, ctx.Err()
	}
}

// launch starts the second process, which ends when the test does.
func launch(t *testing.T, place string) history.Subject {
	name, _, _ := strings.Cut(t.Name(), "/")
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), placeVariable+"="+place)
	var output strings.Builder
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	address := make(chan string, 1)
	reading.Go(func() {
		defer close(address)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), announces); ok {
				address <- at
			} else {
				fmt.Fprintln(&output, lines.Text())
			}
		}
	})
	t.Cleanup(func() {
		in.Close()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the second process: %v\n%s", err, output.String())
		}
	})
	at, ok := <-address
	if !ok {
		t.Fatal("the second process has not begun to serve")
	}
	return remote(at)
}

// remote is the subject that the process at an address is. Its calls cannot be left:
// their contexts end for nobody.
func remote(address string) history.Subject {
	s := history.Subject{
		Transact: func(ctx context.Context, f func(context.Context, func(int) history.InTx) error) error {
			var own error
			_, err := ask(address, call{What: "transact"}, func(w *wire, _ step) step {
				own = f(ctx, func(table int) history.InTx { return inTx{w, table} })
				return step{What: "return", Err: packed(yours(own))}
			})
			return returned(err, own)
		},
	}
	for i := range sharedTables {
		s.Tables = append(s.Tables, history.Table{
			SetIf: func(_ context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error) {
				done, err := ask(address, call{What: "setIf", Table: i, Key: key, Value: value, Expect: expect}, nil)
				return done.Version, err
			},
			Update: func(_ context.Context, key int, f func(int64, bool) (int64, error)) (int64, error) {
				var own error
				done, err := ask(address, call{What: "update", Table: i, Key: key}, func(_ *wire, found step) step {
					var value int64
					value, own = f(found.Value, found.Exists)
					return step{What: "return", Value: value, Err: packed(yours(own))}
				})
				return done.Value, returned(err, own)
			},
		})
	}
	return s
}

// returned is a call's error, with that of the recorder's function in it if that is
// why it has failed.
func returned(err, own error) error {
	if errors.Is(err, errYours) {
		return errors.Join(err, own)
	}
	return err
}

// yours marks an error of the recorder's function, which comes back as what it is.
func yours(err error) error {
	if err == nil || errors.Is(err, lockstep.Keep) {
		return err
	}
	return &own{err}
}

type own struct{ error }

func (e *own) Unwrap() error        { return e.error }
func (e *own) Is(target error) bool { return target == errYours }

// wire is a call's connection.
type wire struct {
	conn net.Conn
	enc  *gob.Encoder
	dec  *gob.Decoder
}

func newWire(conn net.Conn) *wire { return &wire{conn, gob.NewEncoder(conn), gob.NewDecoder(conn)} }

// send and receive end the call when the connection does.
func (w *wire) send(v any) {
	if err := w.enc.Encode(v); err != nil {
		panic(lost{err})
	}
}

func (w *wire) receive() (s step) {
	if err := w.dec.Decode(&s); err != nil {
		panic(lost{err})
	}
	return s
}

type lost struct{ error }

// ask makes a call, running its function here each time the other process wants it.
func ask(address string, c call, run func(*wire, step) step) (done step, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return done, fmt.Errorf("%w: %w", lockstep.ErrUnavailable, err)
	}
	w := newWire(conn)
	defer func() {
		if p := recover(); p != nil {
			// What became of the call is not known, and nobody will tell: a history with
			// such an outcome is checked as one that may have taken effect at any time.
			conn.Close()
			err = fmt.Errorf("%w: the other process: %v", lockstep.ErrUnknownOutcome, p)
		}
	}()
	w.send(c)
	for {
		switch s := w.receive(); s.What {
		case "run":
			back := run(w, s)
			w.send(back)
		case "done":
			if s.Err == nil {
				conn.Close()
				return s, nil
			}
			if !s.Err.Unknown {
				conn.Close()
				return s, s.Err
			}
			p := &pending{failure: s.Err, settled: make(chan struct{})}
			go func() {
				defer conn.Close()
				defer close(p.settled)
				if err := w.dec.Decode(&p.outcome); err != nil {
					p.outcome.Err = packed(err)
				}
			}()
			return s, p
		}
	}
}

// inTx is a table inside a transaction of the other process.
type inTx struct {
	w     *wire
	table int
}

func (a inTx) do(s step) (int64, error) {
	s.Table = a.table
	a.w.send(s)
	answer := a.w.receive()
	if answer.Err != nil {
		return 0, answer.Err
	}
	return answer.Value, nil
}

func (a inTx) Get(_ context.Context, key int) (int64, error) {
	return a.do(step{What: "get", Key: key})
}

func (a inTx) Set(_ context.Context, key int, value int64) error {
	_, err := a.do(step{What: "set", Key: key, Value: value})
	return err
}

func (a inTx) Delete(_ context.Context, key int) error {
	_, err := a.do(step{What: "delete", Key: key})
	return err
}

// serve answers calls until the standard input ends.
func serve(t *testing.T, subject history.Subject) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the recorder has gone
			}
			calls.Go(func() {
				defer conn.Close()
				defer func() {
					if p := recover(); p != nil {
						if _, ok := p.(lost); !ok {
							panic(p)
						}
					}
				}()
				answer(t.Context(), newWire(conn), subject)
			})
		}
	})
	fmt.Println(announces + listener.Addr().String())
	io.Copy(io.Discard, os.Stdin)
	listener.Close()
	calls.Wait()
}

// answer makes the call that a connection asks for.
func answer(ctx context.Context, w *wire, subject history.Subject) {
	var c call
	if err := w.dec.Decode(&c); err != nil {
		panic(lost{err})
	}
	done := step{What: "done"}
	var err error
	switch c.What {
	case "setIf":
		done.Version, err = subject.Tables[c.Table].SetIf(ctx, c.Key, c.Value, c.Expect)
	case "update":
		done.Value, err = subject.Tables[c.Table].Update(ctx, c.Key, func(value int64, exists bool) (int64, error) {
			w.send(step{What: "run", Value: value, Exists: exists})
			back := w.receive()
			if back.Err != nil {
				return 0, back.Err
			}
			return back.Value, nil
		})
	case "transact":
		err = subject.Transact(ctx, func(ctx context.Context, in func(int) history.InTx) error {
			w.send(step{What: "run"})
			return inside(ctx, w, in)
		})
	}
	done.Err = packed(err)
	w.send(done)
	if done.Err == nil || !done.Err.Unknown {
		return
	}
	settled := step{What: "settled"}
	var unknown *lockstep.WriteError
	if errors.As(err, &unknown) {
		settled.Exists, settled.Version, err = unknown.Wait(ctx)
	}
	settled.Err = packed(err)
	w.send(settled)
}

// inside does what the recorder's function does in a transaction, until it returns.
func inside(ctx context.Context, w *wire, in func(int) history.InTx) error {
	var failed []error // the transaction may tell its own errors from others
	for {
		s := w.receive()
		table := in(s.Table)
		back := step{What: "answer"}
		var err error
		switch s.What {
		case "return":
			switch {
			case s.Err == nil:
				return nil
			case s.Err.Ref > 0:
				return failed[s.Err.Ref-1]
			}
			return s.Err
		case "get":
			back.Value, err = table.Get(ctx, s.Key)
		case "set":
			err = table.Set(ctx, s.Key, s.Value)
		case "delete":
			err = table.Delete(ctx, s.Key)
		}
		if back.Err = packed(err); err != nil {
			failed = append(failed, err)
			back.Err.Ref = len(failed)
		}
		w.send(back)
	}
}
