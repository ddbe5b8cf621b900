package history

// Journal is told what the clients of a history do, as they do it, so that the history
// of a program that is killed is not lost with it. Its methods are called by many
// goroutines at once.
type Journal interface {
	// Begun is told of a write before it is asked for. If nothing follows, the write may
	// be at any moment after its call, or at none.
	Begun(op *Op)
	// Ended is told of an operation that is recorded.
	Ended(op *Op)
	// Settled is told what has become of one that ended with an unknown outcome.
	Settled(op *Op)
}

// Pieces is the journal from which a history is put together again. It is for one
// goroutine.
type Pieces struct {
	ops   []*Op
	begun map[call]*Op
	ended map[call]*Op
}

type call struct {
	client int
	number int64
}

// Begun implements Journal.
func (p *Pieces) Begun(op *Op) {
	if p.begun == nil {
		p.begun, p.ended = make(map[call]*Op), make(map[call]*Op)
	}
	p.begun[call{op.Client, op.Number}] = op
}

// Ended implements Journal.
func (p *Pieces) Ended(op *Op) {
	id := call{op.Client, op.Number}
	p.ops = append(p.ops, op)
	if p.begun[id] != nil {
		delete(p.begun, id)
		p.ended[id] = op
	}
	if op.Fate == Unknown {
		op.Return = Forever
	}
}

// Settled implements Journal.
func (p *Pieces) Settled(op *Op) {
	if unknown := p.ended[call{op.Client, op.Number}]; unknown != nil {
		unknown.Fate, unknown.Return, unknown.Writes = op.Fate, op.Return, op.Writes
	}
}

// Died says that the program has come to its end. It returns how many writes were
// under way: each took effect as a whole, or will, or never.
func (p *Pieces) Died() (underWay int) {
	for _, op := range p.begun {
		op.Fate, op.Return = Unknown, Forever
		op.Name += ", when the program ended"
		p.ops = append(p.ops, op)
	}
	underWay = len(p.begun)
	clear(p.begun)
	clear(p.ended)
	return underWay
}

// Ops is the whole history, with the ends of the rows that lapse.
func (p *Pieces) Ops() []*Op { return append(p.ops, lapses(p.ops)...) }
