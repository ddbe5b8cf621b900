package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/memstore"
	"github.com/lockstep-cache/lockstep/store/storetest/fault"
)

// FuzzHash: a row that is read is the one that is written of what was read, everything that
// reads one field agrees with what reads all, and one that is none panics nowhere.
func FuzzHash(f *testing.F) {
	for _, row := range []string{"", "h", "h4:name,3:Ann,", "h0:,0:,", "h1:a,1:b,1:a,1:c,", "h01:a,1:b,", "h1:a,", "h1:a,1:b", "h1a,1:b,", "h999999999999999999999:a,", "h2:a,1:b,", "h-1:a,1:b,", "h:,:,", "s1:a,1:b,", "h1:a,1:b,x", "h12:abcdefghijkl,0:,1:b,2:cd,"} {
		f.Add(row, "a", "v")
	}
	f.Fuzz(func(t *testing.T, row, name, value string) {
		v := Value(row)
		fields, err := v.Hash()
		h, bad := v.hash()
		if bad != nil {
			if err == nil {
				t.Fatalf("%q: %v, but %q", row, bad, fields)
			}
			return
		}
		n, broken := h.length()
		if (broken == nil) != (err == nil) && broken != nil {
			t.Fatalf("%q: %v and %v", row, broken, err)
		}
		got, exists, one := h.get([]byte(name))
		var e edit
		e.set([]byte(name), []byte(value))
		found, twice := h.pieces(&e.names)
		if err != nil {
			return
		}
		if again, err := NewHash(fields...); err != nil || again != v {
			t.Fatalf("%q is read as %q, and written as %q, %v", row, fields, again, err)
		}
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
		if one != nil || twice != nil || n != len(fields) || exists != (i >= 0) || exists && got != fields[i].Value || exists != (len(found) == 1) {
			t.Fatalf("%q: %d fields, %q is %q, %t, %v, %v, %v", row, n, name, got, exists, found, one, twice)
		}
		if i >= 0 {
			fields[i].Value = value
		} else {
			fields = append(fields, Field{name, value})
		}
		want, err := NewHash(fields...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.apply(h, found, len(want)-1); err != nil || got != want {
			t.Fatalf("%q with %q of %q is %q, %v; want %q", row, name, value, got, err, want)
		}
		if _, err := e.apply(h, found, len(want)-2); err == nil {
			t.Fatalf("%d bytes are more than %d", len(want)-1, len(want)-2)
		}
		out := edit{names: e.names}
		if got, err := out.apply(h, found, len(want)); err != nil || len(got) != 1+len(h)-func() int {
			n := 0
			for _, p := range found {
				n += p.to - p.from
			}
			return n
		}() {
			t.Fatalf("%q without %q is %q, %v", row, name, got, err)
		}
	})
}

func TestNewHashRefusesWhatNoServerWrites(t *testing.T) {
	if v, err := NewHash(); err == nil {
		t.Errorf("no field: %q", v)
	}
	if v, err := NewHash(Field{"a", "1"}, Field{"b", "2"}, Field{"a", "3"}); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("a field twice: %q, %v", v, err)
	}
	v, err := NewHash(Field{"name", "Ann"}, Field{"", "\x00"})
	if err != nil || v != "h4:name,3:Ann,0:,1:\x00," {
		t.Errorf("%q, %v", v, err)
	}
}

// TestARowThatIsNoHashNamesKeyAndByte, whichever command meets it, and is left as it is.
func TestARowThatIsNoHashNamesKeyAndByte(t *testing.T) {
	store := memstore.New(memstore.Options[string, Value]{})
	cache, err := lockstep.New[string, Value](store, lockstep.Options[string, Value]{})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		row  Value
		byte int
	}{
		"empty":   {"h", 1},
		"cut":     {"h4:name,3:Ann,3:age,2:4", 14},
		"odd":     {"h4:name,3:Ann,3:age,", 14},
		"foreign": {`h{"name":"Ann"}`, 1},
		"long":    {"h9:name,3:Ann,", 1},
		"zeros":   {"h4:name,03:Ann,", 1},
		"large":   {"h99999999999999999999999:name,3:Ann,", 1},
		"comma":   {"h4:name,3:Ann;", 1},
	}
	for key, c := range rows {
		if _, err := cache.Set(context.Background(), key, c.row); err != nil {
			t.Fatal(err)
		}
	}
	if err := cache.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	_, addr := start(t, Options{Store: store})
	p := dial(t, addr)
	for key, c := range rows {
		want := fmt.Sprintf("-ERR key %q: the value is no hash from byte %d on, counted from 0\r\n", key, c.byte)
		for _, request := range []string{"HGET %s x", "HMGET %s x y", "HGETALL %s", "HKEYS %s", "HVALS %s", "HLEN %s", "HSTRLEN %s x", "HEXISTS %s x", "HSET %s x 1", "HMSET %s x 1", "HSETNX %s x 1", "HDEL %s x", "HINCRBY %s x 1", "HINCRBYFLOAT %s x 1", "HRANDFIELD %s", "HRANDFIELD %s 1", "HSCAN %s 0", "OBJECT ENCODING %s"} {
			p.ask(fmt.Sprintf(request, key), want)
		}
	}
	p.ask("TYPE cut", "+hash\r\n")
	p.ask("HGET cut name", "$3\r\nAnn\r\n") // it is there, and nothing behind it is looked at
	p.ask("DEL cut empty", ":2\r\n")
	found, err := store.Load(context.Background(), []string{"odd"})
	if err != nil || found["odd"].Value != rows["odd"].row {
		t.Errorf("%v, %v", found, err)
	}
}

// TestAFieldThatIsThereTwiceIsNotWritten: which one is meant, nobody knows.
func TestAFieldThatIsThereTwiceIsNotWritten(t *testing.T) {
	h := hash("1:a,1:1,1:b,1:2,1:a,1:3,")
	var n names
	n.add([]byte("a"))
	if found, err := h.pieces(&n); err != brokenHash(17) {
		t.Errorf("%v, %v", found, err)
	}
	if fields, err := Value("h" + h).Hash(); err == nil {
		t.Errorf("%v", fields)
	}
}

// TestIncrementsOfAFieldLoseNone: by many connections, to two servers over one table.
func TestIncrementsOfAFieldLoseNone(t *testing.T) {
	const conns, each = 8, 10
	store := openStore(t)
	var addrs [2]string
	for i := range addrs {
		_, addrs[i] = start(t, Options{Store: store})
	}
	var all sync.WaitGroup
	for i := range conns {
		p := dial(t, addrs[i%2])
		all.Go(func() {
			for range each {
				_, _ = fmt.Fprintf(p, "HINCRBY h n 1\r\nHSET h own%d 1\r\nHDEL h own%d\r\n", i, i)
				for range 3 {
					if v, err := p.replies.Decode(); err != nil || v.Kind == '-' {
						t.Errorf("%s, %v", v, err)
					}
				}
			}
		})
	}
	all.Wait()
	// Neither server hears of what the other has written, and so asks the database.
	_, addr := start(t, Options{Store: store})
	dial(t, addr).ask("HGETALL h", fmt.Sprintf("*2\r\n$1\r\nn\r\n$2\r\n%d\r\n", conns*each))
}

// TestPipelinedHashWritesShareCommits, as SETs do: while the first is under way the others
// queue.
func TestPipelinedHashWritesShareCommits(t *testing.T) {
	const writes = 60
	store := fault.Inject[string, Value](openStore(t), fault.Script{}, 1)
	pending := make(chan struct{}, 2*writes)
	_, addr := start(t, Options{Store: store, Cache: lockstep.Options[string, Value]{Hooks: lockstep.Hooks[string]{
		Pending: func(lockstep.WriteEvent[string]) { pending <- struct{}{} },
	}}})
	p := dial(t, addr)
	large := strings.Repeat("x", 60<<10) // so that there is room for the others together
	p.ask("ECHO "+large, "$61440\r\n"+large+"\r\n")
	first := store.Block(fault.BeforeCommit)
	defer first.Pass()
	var in strings.Builder
	for i := range writes {
		in.WriteString([]string{
			fmt.Sprintf("HSET h%d f v g w\r\n", i), fmt.Sprintf("HINCRBY h%d f 5\r\n", i), fmt.Sprintf("HSETNX h%d f 5\r\n", i),
		}[i%3])
	}
	p.send(in.String())
	for range writes {
		<-pending
	}
	first.Pass()
	for i := range writes {
		p.want([]string{":2\r\n", ":5\r\n", ":1\r\n"}[i%3])
	}
	if n := store.Counts().Commits; n > writes/10 {
		t.Errorf("%d writes took %d commits", writes, n)
	}
}

// TestAHashThatIsTooLargeIsRefused before it is built, and the error names the limit. What a
// HRANDFIELD answers with is bounded, too.
func TestAHashThatIsTooLargeIsRefused(t *testing.T) {
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{}), Logger: slog.New(slog.DiscardHandler),
		Cache: lockstep.Options[string, Value]{MaxValueBytes: 100}})
	p := dial(t, addr)
	p.ask("HSET h f "+strings.Repeat("x", 91), ":1\r\n") // 1 + 1:f, + 91:…, = 100
	p.ask("HSET h f "+strings.Repeat("x", 92), "-ERR too large: the hash would have 100 bytes, and 99 is the most (MaxValueBytes)\r\n")
	p.ask("HSETNX h g ''", "-ERR too large: the hash would have 106 bytes, and 99 is the most (MaxValueBytes)\r\n")
	p.ask("HINCRBY h g 1", "-ERR too large: the hash would have 107 bytes, and 99 is the most (MaxValueBytes)\r\n")
	p.ask("HSTRLEN h f", ":91\r\n")
	p.ask("HRANDFIELD h -100000000 WITHVALUES", "-ERR too large: the reply would have more than 67108864 bytes\r\n")
	p.ask("HRANDFIELD h -9223372036854775807", "-ERR too large: the reply would have more than 67108864 bytes\r\n")
	p.ask("HLEN h", ":1\r\n")
}

// TestAScanOfALargeHashMissesNothing that is there all the while, though half of the hash is
// taken out and put in again between its pages, and what it answers with comes once.
func TestAScanOfALargeHashMissesNothing(t *testing.T) {
	const fields = 3 * smallHash
	_, addr := start(t, Options{Store: memstore.New(memstore.Options[string, Value]{})})
	p := dial(t, addr)
	for i := range fields {
		p.ask(fmt.Sprintf("HSET h f%d %d", i, i), ":1\r\n")
	}
	seen := map[string]int{}
	cursor, steps := "0", 0
	for {
		_, _ = io.WriteString(p, "HSCAN h "+cursor+" COUNT 100\r\n")
		v, err := p.replies.Decode()
		if err != nil || len(v.Elems) != 2 || len(v.Elems[1].Elems) > 200 {
			t.Fatalf("%s, %v", v, err)
		}
		for pair := range slices.Chunk(v.Elems[1].Elems, 2) {
			if seen[pair[0].Text]++; pair[0].Text != "f"+pair[1].Text {
				t.Fatalf("%s", pair)
			}
		}
		if cursor = v.Elems[0].Text; cursor == "0" {
			break
		}
		steps++
		for i := steps % 2; i < fields; i += 40 {
			p.ask(fmt.Sprintf("HDEL h f%d", 2*(i/2)), ":1\r\n")
			p.ask(fmt.Sprintf("HSET h f%d %d", 2*(i/2), 2*(i/2)), ":1\r\n")
		}
	}
	for i := range fields {
		if n := seen["f"+strconv.Itoa(i)]; n != 1 {
			t.Errorf("f%d came %d times", i, n)
		}
	}
	if steps < fields/100-1 || len(slices.Collect(maps.Keys(seen))) != fields {
		t.Errorf("%d pages, %d fields", steps+1, len(seen))
	}
}

// TestHGetAllocatesAsGetDoes, of a hash however large.
func TestHGetAllocatesAsGetDoes(t *testing.T) {
	s, err := New(Options{Store: memstore.New(memstore.Options[string, Value]{})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	c := newConn(s, &canned{})
	args := func(request string) (args [][]byte) {
		for word := range strings.FieldsSeq(request) {
			args = append(args, []byte(word))
		}
		return args
	}
	c.do(args("SET string value"))
	c.do(args("HSET hash" + fieldsOf(1000)))
	count := func(request string) float64 {
		a := args(request)
		return testing.AllocsPerRun(100, func() {
			c.do(a)
			c.w.Reset(keptOutput)
		})
	}
	want := count("GET string")
	for _, request := range []string{"HGET hash field999", "HEXISTS hash field999", "HSTRLEN hash nosuch", "HLEN hash"} {
		if n := count(request); n > want {
			t.Errorf("%s: %v allocations, and of GET %v", request, n, want)
		}
	}
}

func BenchmarkHGet(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var fields []Field
			for i := range n {
				fields = append(fields, Field{fmt.Sprint("field", i), fmt.Sprint(i * i)})
			}
			v, err := NewHash(fields...)
			if err != nil {
				b.Fatal(err)
			}
			h, _ := v.hash()
			name := []byte("nosuch") // so that all are looked at
			b.ReportAllocs()
			for b.Loop() {
				if _, exists, err := h.get(name); exists || err != nil {
					b.Fatal(exists, err)
				}
			}
		})
	}
}
