package mysqlstore_test

import (
	"strings"
	"testing"

	"github.com/lockstep-cache/lockstep"
	"github.com/lockstep-cache/lockstep/internal/dbtest"
	"github.com/lockstep-cache/lockstep/store/internal/rowstest"
	"github.com/lockstep-cache/lockstep/store/mysqlstore"
	"github.com/lockstep-cache/lockstep/store/rows"
)

func TestRowsAreText(t *testing.T) {
	for _, versioned := range []bool{true, false} {
		dsn, version := dbtest.MariaDB(t), ""
		if versioned {
			version = ", version BIGINT NOT NULL"
		}
		execute(t, connect(t, dsn), `CREATE TABLE users (id BIGINT PRIMARY KEY, name TEXT NOT NULL, kind VARCHAR(20) NOT NULL DEFAULT 'plain', made DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
			age INT, large BIGINT UNSIGNED, score DOUBLE, half FLOAT, done BOOLEAN, price DECIMAL(10,2), body VARBINARY(100), at DATETIME(6), stamp TIMESTAMP(3) NULL, born DATE, doc JSON, uid UUID, mood ENUM('sad', 'happy'), tags SET('a', 'b')`+version+`)`)
		db := openDatabase(t, dsn)
		rowstest.Run(t, rowstest.Subject{
			Open: func(t *testing.T) rowstest.Store {
				s, err := mysqlstore.NewTableIn[rows.Key, rows.Row](t.Context(), db, "users", mysqlstore.TableOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return s
			},
			Texts: map[string]string{"age": "-2147483648", "large": "18446744073709551615", "score": "0.1", "half": "0.1", "done": "1", "price": "12.50", "body": "\x00\xff,:", "at": "2026-01-02T15:04:05.123456Z",
				"stamp": "2026-01-02T15:04:05.123Z", "born": "2026-01-02", "doc": `{"a": [1]}`, "uid": "1b4e28ba-2fa1-41d2-883f-0016d3cca427", "mood": "sad", "tags": "a,b"},
			Also: [][3]string{{"at", "2026-01-02T15:04:05+02:00", "2026-01-02T13:04:05Z"}, {"score", "1e3", "1000"}, {"score", "1e300", "1e+300"}, {"large", "0", "0"}, {"done", "7", "7"},
				{"price", "5", "5.00"}, {"price", "-7.100", "-7.10"}, {"age", "0", "0"}, {"body", "", ""}, {"kind", "", ""}, {"tags", "b,a", "a,b"}, {"tags", "", ""},
				{"uid", "1B4E28BA-2FA1-41D2-883F-0016D3CCA427", "1b4e28ba-2fa1-41d2-883f-0016d3cca427"}},
			Wrong: map[string][]string{
				"age": {"x", "", "1.5", "+1", "2147483648", " 1"}, "large": {"-1", "18446744073709551616"}, "score": {"x", "", "0x10", "inf", "NaN", "1_0", "1e999"}, "done": {"", "yes", "128"}, "price": {"x", "", "1,5", "NaN", "1.001", "1e1"},
				"at": {"", "x", "2026-01-02", "2026-01-02 15:04:05", "2026-13-02T15:04:05Z"}, "born": {"", "x", "2026-02-30", "2026-1-2"}, "doc": {"", "{", "x"}, "uid": {"", "x"}, "kind": {"\xff", strings.Repeat("x", 21)},
				"mood": {"", "angry"}, "tags": {"c"}, "body": {strings.Repeat("x", 101)},
			},
			Versioned: versioned,
		})
	}
}

// TestAColumnThatIsRenewedIsLeftToTheDatabase: what is read of it would be written again, and
// nothing would renew it.
func TestAColumnThatIsRenewedIsLeftToTheDatabase(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	pool := connect(t, dsn)
	execute(t, pool, `CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, touched DATETIME NOT NULL DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP)`)
	s, err := mysqlstore.NewTableIn[rows.Key, rows.Row](t.Context(), openDatabase(t, dsn), "t", mysqlstore.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Columns()[2]; !c.Fixed || c.Name != "touched" {
		t.Errorf("%+v", c)
	}
	cache, err := lockstep.New[rows.Key, rows.Row](s, lockstep.Options[rows.Key, rows.Row]{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close(t.Context()) })
	const old = "7:touched,20:2020-01-01T00:00:00Z,"
	for i, name := range []string{"3:Ann,", "3:Bob,"} {
		if _, err := cache.Set(t.Context(), "1", rows.Row("h4:name,"+name+old)); err != nil {
			t.Fatal(err)
		}
		r, err := cache.Get(t.Context(), "1")
		if err != nil || !strings.HasPrefix(string(r), "h2:id,1:1,4:name,"+name+"7:touched,20:20") || strings.HasSuffix(string(r), old) != (i == 0) {
			t.Errorf("%q, %v", r, err)
		}
	}
}

// TestWhatHasNoTextIsRefusedAtOpen, each column by its name.
func TestWhatHasNoTextIsRefusedAtOpen(t *testing.T) {
	dsn := dbtest.MariaDB(t)
	execute(t, connect(t, dsn), `CREATE TABLE odd (id BIGINT PRIMARY KEY, place POINT, y YEAR, t TIME)`)
	_, err := mysqlstore.NewTableIn[rows.Key, rows.Row](t.Context(), openDatabase(t, dsn), "odd", mysqlstore.TableOptions{})
	if err == nil {
		t.Fatal("it was opened")
	}
	for _, part := range []string{"column place: its type point", "column y: its type year", "column t: its type time"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
}
