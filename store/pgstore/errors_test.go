package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/store/internal/errortable"
)

func TestFates(t *testing.T) {
	for code, want := range map[string]fate{
		"40001": fateAgain, "40P01": fateAgain, "0A000": fateAgain, "26000": fateAgain,
		"55P03": fateBlocked,
		"22003": fateRefused, "23505": fateRefused, "23514": fateRefused, "44000": fateRefused, "54000": fateRefused, "P0001": fateRefused,
		"40003": fateUnknown, "08006": fateUnknown, "08007": fateUnknown, "57P01": fateUnknown, "57P03": fateUnknown, "": fateUnknown,
		"57014": fateGone, "25006": fateGone, "42P01": fateGone, "42501": fateGone, "53100": fateGone, "53300": fateGone,
	} {
		err := fmt.Errorf("wrapped: %w", &pgconn.PgError{SeverityUnlocalized: "ERROR", Severity: "FEHLER", Code: code})
		if got := fateOf(err); got != want {
			t.Errorf("%s is %d, want %d", code, got, want)
		}
		for _, severity := range []string{"FATAL", "PANIC"} {
			if got := fateOf(&pgconn.PgError{SeverityUnlocalized: severity, Code: code}); got != fateUnknown {
				t.Errorf("%s %s is %d", severity, code, got)
			}
		}
	}
	for _, err := range []error{io.ErrUnexpectedEOF, context.Canceled, errors.New("anything else")} {
		if got := fateOf(err); got != fateUnknown {
			t.Errorf("%v is %d", err, got)
		}
	}
}

// The table in docs/design/unknown.md and the code say the same of every SQLSTATE.
func TestTheTableOfFates(t *testing.T) {
	fates, rest := errortable.Fates(t, errortable.Read(t, "PostgreSQL"))
	names := map[fate]string{fateAgain: "again", fateBlocked: "blocked", fateRefused: "refused", fateGone: "gone", fateUnknown: "unknown"}
	says := func(severity, code string) {
		want := rest
		for _, name := range []string{code[:2], code, severity} {
			if f := fates[name]; f != "" {
				want = f
			}
		}
		if got := names[fateOf(&pgconn.PgError{SeverityUnlocalized: severity, Code: code})]; got != want {
			t.Errorf("%s %s is %s, and the table says %s", severity, code, got, want)
		}
	}
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, a := range digits {
		for _, b := range digits {
			for _, last := range []string{"000", "001", "P01"} {
				says("ERROR", string(a)+string(b)+last)
			}
			says("FATAL", string(a)+string(b)+"000")
			says("PANIC", string(a)+string(b)+"000")
		}
	}
	for name := range fates {
		switch {
		case len(name) == 5 && name != "FATAL" && name != "PANIC":
			for _, severity := range []string{"ERROR", "FATAL"} {
				says(severity, name)
			}
			for _, last := range digits { // its neighbours
				says("ERROR", name[:4]+string(last))
			}
		case len(name) != 2 && name != "FATAL" && name != "PANIC":
			t.Errorf("the table names %s, which is no SQLSTATE", name)
		}
	}
}

// The same for the classes that do not refuse a row of a mapped table.
func TestTheClassesThatSayNothingOfARow(t *testing.T) {
	text, err := os.ReadFile("../../docs/design/unknown.md")
	if err != nil {
		t.Fatal(err)
	}
	classes := strings.Join(servers[:len(servers)-1], ", ") + " and " + servers[len(servers)-1]
	if !strings.Contains(string(text), "all but "+classes+".") {
		t.Errorf("docs/design/unknown.md does not say: all but %s.", classes)
	}
}

// What no server can be started for within a test.
func TestServersThatAreNotFit(t *testing.T) {
	good := inspection{version: 150000, pid: 7, started: 1, encoding: "UTF8", client: "UTF8", readOnly: "off", fsync: "on", pages: "on", synchronous: "remote_apply", digits: 1}
	if err := good.check(DatabaseOptions{}, 7); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil  func(i *inspection)
		want   error
		unsafe bool // AllowUnsafeDurability accepts it
	}{
		"old":         {func(i *inspection) { i.version = 120099 }, lockstep.ErrUnsupported, false},
		"pooler":      {func(i *inspection) { i.pid = 8 }, lockstep.ErrUnsupported, false},
		"hidden":      {func(i *inspection) { i.started = 0 }, lockstep.ErrUnsupported, false},
		"encoding":    {func(i *inspection) { i.encoding = "LATIN1" }, lockstep.ErrInvalid, false},
		"digits":      {func(i *inspection) { i.digits = 0 }, lockstep.ErrInvalid, false},
		"replica":     {func(i *inspection) { i.recovery = true }, lockstep.ErrInvalid, false},
		"fsync":       {func(i *inspection) { i.fsync = "off" }, lockstep.ErrInvalid, true},
		"pages":       {func(i *inspection) { i.pages = "off" }, lockstep.ErrInvalid, true},
		"synchronous": {func(i *inspection) { i.synchronous = "off" }, lockstep.ErrInvalid, true},
	} {
		i := good
		c.spoil(&i)
		if err := i.check(DatabaseOptions{}, 7); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := i.check(DatabaseOptions{AllowUnsafeDurability: true}, 7); (err == nil) != c.unsafe {
			t.Errorf("%s, with AllowUnsafeDurability: %v", name, err)
		}
	}
}
