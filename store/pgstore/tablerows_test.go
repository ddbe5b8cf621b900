package pgstore_test

import (
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/rowstest"
	"github.com/lockstep-cache/lockstep/store/pgstore"
	"github.com/lockstep-cache/lockstep/store/rows"
)

func TestRowsAreText(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		url := dbtest.Postgres(t)
		c, version := connect(t, url), ""
		if versioned {
			version = ", version bigint NOT NULL"
		}
		run(t, c, `CREATE TYPE mood AS ENUM ('sad', 'happy')`)
		run(t, c, `CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, kind varchar(20) NOT NULL DEFAULT 'plain', made timestamptz NOT NULL DEFAULT now(),
			age int, score double precision, half real, done boolean, price numeric(10,2), amount numeric, body bytea, at timestamptz, local timestamp(3), born date, doc jsonb, raw json, uid uuid, mood mood, code char(4)`+version+`)`)
		db := openPool(t, url)
		rowstest.Run(t, rowstest.Subject{
			Open: func(t *testing.T) rowstest.Store {
				s, err := pgstore.NewTableIn[rows.Key, rows.Row](t.Context(), db, "users", pgstore.TableOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Texts: map[string]string{"age": "-2147483648", "score": "0.1", "half": "0.1", "done": "1", "price": "12.50", "amount": "123456789012345678901234567890.5", "body": "\x00\xff,:", "at": "2026-01-02T15:04:05.123456Z",
				"local": "2026-01-02T15:04:05.123Z", "born": "2026-01-02", "doc": `{"a": [1]}`, "raw": `{"a":[1]}`, "uid": "01234567-89ab-cdef-0123-456789abcdef", "mood": "sad", "code": "abc"},
			Also: [][3]string{{"done", "TRUE", "1"}, {"done", "f", "0"}, {"at", "2026-01-02T15:04:05+02:00", "2026-01-02T13:04:05Z"}, {"score", "1e3", "1000"}, {"score", "1e300", "1e+300"}, {"score", "NaN", "NaN"}, {"score", "-Infinity", "-Infinity"},
				{"price", "5", "5.00"}, {"price", "-7.100", "-7.10"}, {"amount", "1e3", "1000"}, {"amount", "NaN", "NaN"}, {"doc", `{"b":1,"a":2}`, `{"a": 2, "b": 1}`}, {"age", "0", "0"}, {"body", "", ""}, {"kind", "", ""},
				{"uid", "01234567-89AB-CDEF-0123-456789ABCDEF", "01234567-89ab-cdef-0123-456789abcdef"}},
			Wrong: map[string][]string{
				"age": {"x", "", "1.5", "+1", "2147483648", " 1"}, "score": {"x", "", "0x10", "inf", "1_0", "1e999"}, "done": {"", "yes", "2"}, "price": {"x", "", "1,5", "NaN", "1.001", "1e1"}, "amount": {"x", ""},
				"at": {"", "x", "2026-01-02", "2026-01-02 15:04:05", "2026-13-02T15:04:05Z"}, "born": {"", "x", "2026-02-30", "2026-1-2"}, "doc": {"", "{", "x"}, "raw": {"", "{"}, "uid": {"", "x"}, "kind": {"a\x00b", "\xff", strings.Repeat("x", 21)},
			},
			Versioned: versioned,
		})
	}
}

// TestWhatHasNoTextIsRefusedAtOpen, each column by its name.
func TestWhatHasNoTextIsRefusedAtOpen(t *testing.T) {
	url := dbtest.Postgres(t)
	run(t, connect(t, url), `CREATE TABLE odd (id text PRIMARY KEY, tags text[], place point, net inet)`)
	_, err := pgstore.NewTableIn[rows.Key, rows.Row](t.Context(), openPool(t, url), "odd", pgstore.TableOptions{})
	if err == nil {
		t.Fatal("it was opened")
	}
	for _, part := range []string{"column tags: its type _text", "column place: its type point", "column net: its type inet"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}
