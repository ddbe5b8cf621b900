package netfault

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
)

// Rule is something to break, once.
type Rule struct {
	proxy    *Proxy
	match    []byte
	action   action
	happened chan struct{}
	release  chan struct{} // ends a hold
	once     sync.Once
}

type action int

const (
	cutRequest action = iota
	cutReply
	holdReply
)

// Happened is closed when what the rule asks for has happened: the connection is cut, or
// the answer is held.
func (r *Rule) Happened() <-chan struct{} { return r.happened }

// Release lets the answer go that the rule of [Proxy.HoldReply] holds. It may be called
// at any time and more than once; for other rules it does nothing.
func (r *Rule) Release() { r.once.Do(func() { close(r.release) }) }

// Withdraw takes back a rule that nothing has met, and returns whether it was one.
func (r *Rule) Withdraw() bool {
	p := r.proxy
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.rules)
	p.rules = slices.DeleteFunc(p.rules, func(other *Rule) bool { return other == r })
	return len(p.rules) < n
}

// CutReply makes one message be answered in vain: the next one that contains match
// is passed on, and when the server answers it, the client's and the server's
// connection are closed and the answer is lost. A match that is empty or too long is an
// error.
func (p *Proxy) CutReply(match string) (*Rule, error) { return p.rule(match, cutReply) }

// CutRequest makes one message not arrive: both connections are closed in place of
// passing on the next one that contains match. A beginning of it, without the end
// of match, may have been passed on; the server does nothing with that. A match that is
// empty or too long is an error.
func (p *Proxy) CutRequest(match string) (*Rule, error) { return p.rule(match, cutRequest) }

// HoldReply makes one answer come late: the next message that contains match is
// passed on, and the answer, with all that follows on that connection, waits for
// the rule's Release. A match that is empty or too long is an error.
func (p *Proxy) HoldReply(match string) (*Rule, error) { return p.rule(match, holdReply) }

const maxMatch = 1024

func (p *Proxy) rule(match string, a action) (*Rule, error) {
	if match == "" || len(match) > maxMatch {
		return nil, fmt.Errorf("netfault: a match of %d bytes: it must have 1 to %d", len(match), maxMatch)
	}
	r := &Rule{proxy: p, match: []byte(match), action: a, happened: make(chan struct{}), release: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
	for l := range p.links {
		l.seen = nil
	}
	return r, nil
}

// Outstanding are the rules that have not happened, an error for each.
func (p *Proxy) Outstanding() (errs []error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		errs = append(errs, fmt.Errorf("nothing contained %q", r.match))
	}
	for _, r := range p.met {
		errs = append(errs, fmt.Errorf("the server did not answer what contained %q", r.match))
	}
	return errs
}

// find returns the first rule that the bytes meet, which a client sent after those
// that were seen of it, and remembers what the next ones may continue.
func (p *Proxy) find(l *link, sent []byte) *Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rules) == 0 {
		return nil // the next rule starts from here
	}
	l.seen = append(l.seen, sent...)
	for i, r := range p.rules {
		if bytes.Contains(l.seen, r.match) {
			p.rules, p.met = slices.Delete(p.rules, i, i+1), append(p.met, r)
			l.seen = nil
			return r
		}
	}
	// What is kept is shorter than any match that was looked for in it, or holds
	// none of them.
	l.seen = bytes.Clone(l.seen[max(0, len(l.seen)-maxMatch+1):])
	return nil
}

// happened notes that a rule has happened, before anybody can see that it has.
func (p *Proxy) happened(r *Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.met = slices.DeleteFunc(p.met, func(other *Rule) bool { return other == r })
	switch r.action {
	case cutRequest:
		p.counts.RequestsCut++
	case cutReply:
		p.counts.RepliesCut++
	case holdReply:
		p.counts.RepliesHeld++
	}
	close(r.happened)
}
