package mysqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/lockstep-cache/lockstep/store/internal/kv"
)

// record is a row to be written.
type record struct {
	index int // of its key in the batch
	bytes int
	cols  [6]any // as columns names them
}

func (w *work[K, V]) record(i int, st *kv.State) record {
	r := record{index: i, bytes: len(st.Data) + keyLen(w.Encoded[i])}
	value, expires, deleted := any(nil), nullable(st.Expires), int64(1)
	if st.Live {
		value, deleted = column(st.Data), 0
	} else {
		expires = w.d.Now.Add(keepTombstones).UnixMicro()
	}
	r.cols = [6]any{w.Encoded[i], value, st.Version, expires, deleted, w.a.stamp}
	return r
}

// placeholder locks an absent row. Should it outlive its transaction, it is swept as
// any tombstone.
func (w *work[K, V]) placeholder(i int) record {
	return record{index: i, bytes: keyLen(w.Encoded[i]),
		cols: [6]any{w.Encoded[i], nil, int64(0), time.Now().UnixMicro(), int64(1), w.a.stamp}}
}

// writeRows writes rows, in their order, by statements that are texts[i] for
// rowSizes[i] rows. Where it does no harm to write a row twice, a list is padded;
// else it is taken to pieces.
func (a *attempt) writeRows(ctx context.Context, texts []string, rows []record, twice bool) error {
	most := a.db.statementRoom()
	for len(rows) > 0 {
		n, bytes := 0, 0
		for n < min(len(rows), maxRows) && (n == 0 || bytes+rows[n].bytes <= most) {
			bytes += rows[n].bytes
			n++
		}
		i, exact := slices.BinarySearch(rowSizes[:], n)
		if !exact && !(twice && bytes <= most) {
			i--
			n = rowSizes[i]
		}
		args := make([]any, 0, rowSizes[i]*len(rows[0].cols))
		short := 0
		for j := range n {
			if rows[j].bytes < rows[short].bytes {
				short = j
			}
		}
		for j := range n {
			args = append(args, rows[j].cols[:]...)
			for range rowSizes[i] - n {
				if j != short {
					break
				}
				args = append(args, rows[j].cols[:]...)
			}
		}
		if err := a.left(ctx); err != nil {
			return err
		}
		if _, _, err := a.s.exec(ctx, texts[i], args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}
