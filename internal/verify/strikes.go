package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// striker breaks things around a life of a round. It works beside the one who hears what
// the program tells, and never makes it wait.
type striker struct {
	j    *judge
	r    *round
	left []strike // by their numbers
	due  chan strike
	over chan struct{}
	gone chan struct{}

	struck map[Fault]int
	random *rand.Rand
	err    error
	// counts are the program's last. They belong to the one who hears.
	counts map[string]uint64
}

func newStriker(j *judge, r *round) *striker {
	s := &striker{
		j: j, r: r, due: make(chan strike, len(r.strikes)), over: make(chan struct{}), gone: make(chan struct{}),
		struck: make(map[Fault]int), random: rand.New(rand.NewPCG(r.seed, 3)),
	}
	for _, strike := range r.strikes {
		if strike.at > r.told {
			s.left = append(s.left, strike)
		}
	}
	return s
}

// told says how many records there are by now.
func (s *striker) told(n int) {
	for len(s.left) > 0 && s.left[0].at <= n {
		s.due <- s.left[0]
		s.left = s.left[1:]
	}
}

// at has it break things around a life.
func (s *striker) at(l *life) {
	go func() {
		defer close(s.gone)
		for {
			select {
			case <-s.over:
				return
			case strike := <-s.due:
				struck, err := s.strike(l, strike)
				if err != nil {
					s.err = fmt.Errorf("%s: %w", strike.fault, err)
					l.kill()
					return
				}
				if struck {
					s.struck[strike.fault]++
					s.j.struck.Add(1)
				}
			}
		}
	}()
}

// end returns when whatever was broken is whole again.
func (s *striker) end() (map[Fault]int, error) {
	close(s.over)
	<-s.gone
	return s.struck, s.err
}

// strike breaks something, and makes it whole again. It reports whether there was still
// something to break.
func (s *striker) strike(l *life, what strike) (bool, error) {
	switch what.fault {
	case Cuts:
		s.r.net.CutAll()
	case Stalls:
		release := s.r.net.Hold()
		s.rest(what.lasts)
		release()
	case Pauses:
		wake, err := pause(l.cmd.Process)
		if errors.Is(err, os.ErrProcessDone) {
			return false, nil // it has ended by itself
		}
		if err != nil {
			return false, err
		}
		s.rest(what.lasts)
		wake()
	case Stops:
		return s.stop(what.lasts)
	case ServerKill:
		s.j.steady.Lock()
		defer s.j.steady.Unlock()
		if err := s.j.Server.Kill(); err != nil {
			return false, err
		}
		s.rest(what.lasts)
		// Also if this life is over: others need it.
		return true, s.j.Server.Start(context.Background())
	}
	return true, nil
}

// stop stops a process of the server: one of those that it has started, if there are any,
// as PostgreSQL does for each session.
func (s *striker) stop(d time.Duration) (bool, error) {
	s.j.steady.RLock() // it is not killed meanwhile
	defer s.j.steady.RUnlock()
	pid, children, err := s.j.Server.Processes()
	if err != nil {
		return false, err
	}
	if len(children) > 0 {
		pid = children[s.random.IntN(len(children))]
	}
	if s.j.Server.Suspend(pid) != nil {
		return false, nil // a session that has ended
	}
	s.rest(d)
	s.j.Server.Resume(pid) // or it was ended
	return true, nil
}

// rest waits, as long as the life goes on.
func (s *striker) rest(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.over:
	}
}
