package sqlitestore

import (
	"errors"
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
)

func TestParseURL(t *testing.T) {
	for s, want := range map[string]URL{
		"sqlite:app.db":              {Path: "app.db"},
		"sqlite:./a/b.db":            {Path: "./a/b.db"},
		"sqlite:/var/app.db":         {Path: "/var/app.db"},
		"sqlite:///var/app.db":       {Path: "/var/app.db"},
		"sqlite:50%25%3F.db":         {Path: "50%?.db"},
		"sqlite:a.db?table=t+1":      {Path: "a.db", Table: "t 1"},
		"sqlite:a.db?codec=cbor":     {Path: "a.db", Codec: "cbor"},
		"sqlite:a.db?readers=3":      {Path: "a.db", Database: DatabaseOptions{Readers: 3}},
		"sqlite:a.db?page-size=1024": {Path: "a.db", Database: DatabaseOptions{PageSize: 1024}},
		"sqlite:a.db?checkpoint-bytes=4096&allow-unsafe-durability=true": {Path: "a.db",
			Database: DatabaseOptions{CheckpointBytes: 4096, AllowUnsafeDurability: true}},
	} {
		if got, err := ParseURL(s); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", s, got, err, want)
		}
	}
	for s, part := range map[string]string{
		"":                               "does not start with",
		"postgres://h/db":                "does not start with",
		"sqlite:":                        "names no file",
		"sqlite::memory:":                "names no file",
		"sqlite://host/app.db":           "host",
		"sqlite:a.db#x":                  "#",
		"sqlite:%zz":                     "the path",
		"sqlite:a%00b":                   "names no file",
		"sqlite:a.db?tabel=x":            "tabel",
		"sqlite:a.db?table=":             "table",
		"sqlite:a.db?table=sqlite_x":     "table",
		"sqlite:a.db?table=a&table=b":    "2 times",
		"sqlite:a.db?codec=xml":          "codec",
		"sqlite:a.db?readers=0":          "readers",
		"sqlite:a.db?readers=x":          "readers",
		"sqlite:a.db?readers=1025":       "1024",
		"sqlite:a.db?checkpoint-bytes=-": "checkpoint-bytes",
		"sqlite:a.db?page-size=1000":     "power of two",
		"sqlite:a.db?allow-unsafe-durability=perhaps": "allow-unsafe-durability",
		"sqlite:a.db?%": "options",
	} {
		if _, err := ParseURL(s); !errors.Is(err, lockstep.ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("ParseURL(%q): %v, want an error that is ErrInvalid and names %q", s, err, part)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"sqlite:app.db", "sqlite:///a?table=x&codec=raw", "sqlite:a%2fb?readers=9", "sqlite:////a", "sqlite:?"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			return
		}
		again, err := ParseURL(u.String())
		if err != nil || again != u {
			t.Fatalf("ParseURL(%q) = %+v, whose text %q parses as %+v, %v", s, u, u.String(), again, err)
		}
	})
}
