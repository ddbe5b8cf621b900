package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"

	"github.com/lockstep-cache/lockstep/internal/demo"
)

// demoVerb is lockstep demo.
type demoVerb struct {
	Store  string  `placeholder:"URL" help:"Play on this database, sqlite:PATH, in tables of its own that are removed afterwards. Without it a temporary file is used."`
	JSON   bool    `name:"json" help:"Every figure and the verdict as one JSON object, and nothing else."`
	Scale  float64 `default:"1" placeholder:"X" help:"How much work to do: 1 takes about twenty seconds, 0.1 a few."`
	Tamper bool    `help:"Change a row behind the cache's back before the comparison, to see that it is found."`
}

// Help is the long help.
func (demoVerb) Help() string {
	return "Shows on a real database what each pattern of the cache does, with figures measured in the run, and ends by comparing memory with the database row by row. The exit status is 1 when anything is not as it must be."
}

var errDisagrees = errors.New("the demo did not show what it should; see above")

func (v demoVerb) Run(ctx context.Context, out io.Writer) (err error) {
	if !(v.Scale > 0 && v.Scale <= 100) {
		return usagef("--scale %v: it must be above 0 and at most 100", v.Scale)
	}
	text := v.Store
	if text == "" {
		dir, err := os.MkdirTemp("", "lockstep-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		text = onFile(filepath.Join(dir, "demo.db"))
	}
	url, err := parseStore(text)
	if err != nil {
		return err
	}
	guest, err := url.visit(ctx, fmt.Sprintf("lockstep_demo_%08x_", rand.Uint32()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, guest.leave(ctx)) }()

	o := demo.Options{Database: guest.database(v.Store == ""), Out: out, Terminal: isTerminal(out), Scale: v.Scale, Tamper: v.Tamper}
	if v.JSON {
		o.Out, o.Terminal = io.Discard, false
	}
	result, err := demo.Run(ctx, o)
	if err != nil {
		return err
	}
	if v.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(result); err != nil {
			return err
		}
	}
	if !result.Agrees {
		return errDisagrees
	}
	return nil
}

// isTerminal tells whether somebody watches who can see colours. Consoles of
// Windows that cannot are older than the ones that set WT_SESSION.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	if runtime.GOOS == "windows" && os.Getenv("WT_SESSION") == "" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
