package storetest

import (
	"bytes"
	"fmt"
)

// Doc is the value that the suite stores. Its tags suit a table of columns
//
//	title  text    not null, of up to 60,000 bytes: a TEXT of 64 KiB will do
//	count  64-bit integer not null
//	score  double  not null
//	done   boolean not null
//	body   bytes, null allowed, of up to 1 MiB
//
// beside a key column that distinguishes strings byte by byte. Body is there
// because it can be shared by mistake. An empty and a nil Body are the same.
type Doc struct {
	Title string  `db:"title" json:"title"`
	Count int64   `db:"count" json:"count"`
	Score float64 `db:"score" json:"score"`
	Done  bool    `db:"done" json:"done"`
	Body  []byte  `db:"body" json:"body"`
}

// Equal tells whether two documents say the same.
func (d Doc) Equal(e Doc) bool {
	return d.Title == e.Title && d.Count == e.Count && d.Score == e.Score && d.Done == e.Done &&
		bytes.Equal(d.Body, e.Body)
}

// String abbreviates long documents.
func (d Doc) String() string {
	return fmt.Sprintf("{%.40q %d %g %t %d bytes}", d.Title, d.Count, d.Score, d.Done, len(d.Body))
}

// doc returns a document that no other n has.
func doc(n int64) Doc {
	return Doc{
		Title: fmt.Sprintf("document %d", n),
		Count: n,
		Score: float64(n) / 4,
		Done:  n%2 == 1,
		Body:  fmt.Appendf(nil, "body of %d", n),
	}
}
