package server

import (
	"slices"
	"sync"
	"time"

	"github.com/lockstep-cache/lockstep/resp"
)

// A run is consecutive writes of a pipeline whose replies are short. They are run beside
// each other, so that they share commits, except that those of one key keep their order.
// Each of them is committed or refused by itself, and becomes visible by itself: a reader
// elsewhere may see a later one before an earlier one of another key. All replies are
// built before anything that follows in the pipeline is run.

// longestRun bounds the goroutines of a run. It is as many as fit one batch.
const longestRun = 512

// always and others are of rows: whether a request may be part of a run.
func always([][]byte) bool { return true }

// withoutGet is SET's, which with GET has a reply as long as a value.
func withoutGet(args [][]byte) bool {
	return !slices.ContainsFunc(args[3:], func(arg []byte) bool { return is(arg, "get") })
}

// member is a request of a run.
type member struct {
	request
	reply  resp.Writer
	silent bool
	took   time.Duration
}

// join has a write be a part of the run, if it may, and if anything has come with which
// it could share a commit.
func (c *conn) join(cmd *command, args [][]byte) bool {
	if cmd == nil || cmd.shares == nil || c.multi != nil || c.server.keys == nil || !c.authenticated || !c.may(cmd) || c.listensOnly() || !cmd.fits(len(args)) || !cmd.shares(args) ||
		len(c.group) == 0 && c.r.Buffered() == 0 {
		return false
	}
	c.current = cmd
	c.follows.caching = false
	m := &member{}
	m.request = c.request(cmd, args, &m.reply)
	m.reply.SetVersion(c.w.Version())
	m.silent = c.silenced()
	c.group = append(c.group, m)
	if len(c.group) == longestRun {
		c.runGroup()
	}
	return true
}

// runGroup runs what has joined, and appends the replies.
func (c *conn) runGroup() {
	group := c.group
	if len(group) == 0 {
		return
	}
	c.group = group[:0]
	c.settle()
	c.wrote = true
	if chains := chainsOf(group); len(chains) == 1 {
		runChain(chains[0])
	} else {
		runChains(chains)
	}
	for i, m := range group {
		c.countMember(m)
		if !m.silent {
			c.w.Raw(m.reply.Bytes())
		}
		c.tellOwn(m.writing.own)
		group[i] = nil
	}
}

// chainsOf puts together, in order, those that name the same key, directly or by way of
// others.
func chainsOf(group []*member) [][]*member {
	parent := make([]int, len(group))
	root := func(i int) int {
		for parent[i] != i {
			parent[i] = parent[parent[i]]
			i = parent[i]
		}
		return i
	}
	named := make(map[string]int, len(group)) // by a key: who named it first
	for i, m := range group {
		parent[i] = i
		for _, key := range m.cmd.keys.of(m.args) {
			if first, again := named[string(key)]; again {
				// The older one is the root, so that chains are in the order of their beginnings.
				a, b := root(first), root(i)
				parent[max(a, b)] = min(a, b)
			} else {
				named[string(key)] = i
			}
		}
	}
	var chains [][]*member
	at := make(map[int]int)
	for i, m := range group {
		j, known := at[root(i)]
		if !known {
			j = len(chains)
			at[root(i)], chains = j, append(chains, nil)
		}
		chains[j] = append(chains[j], m)
	}
	return chains
}

func runChain(chain []*member) {
	for _, m := range chain {
		began := nanos()
		m.perform()
		m.took = time.Duration(nanos() - began)
	}
}

// runChains runs chains beside each other. A panic in one of them is the caller's, when
// all have ended: it ends the connection, as it does elsewhere.
func runChains(chains [][]*member) {
	var (
		all   sync.WaitGroup
		mu    sync.Mutex
		fault any
	)
	for _, chain := range chains {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					mu.Lock()
					fault = p
					mu.Unlock()
				}
			}()
			runChain(chain)
		})
	}
	all.Wait()
	if fault != nil {
		panic(fault)
	}
}
