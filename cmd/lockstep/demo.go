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
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/lockstep-cache/lockstep/internal/demo"
)

// demoVerb is lockstep demo.
type demoVerb struct {
	Store  storeFlag `placeholder:"URL" help:"Play on this database: ${stores}. The demo's tables are removed afterwards, and so is the file if it was not there before. Without --store, a temporary file."`
	JSON   bool      `name:"json" help:"Every figure and the verdict as one JSON object, and nothing else."`
	Scale  scaleFlag `default:"1" placeholder:"X" help:"How much work to do: above 0, at most 100; default 1, about twenty seconds."`
	Tamper bool      `help:"Change a row behind the cache's back before the comparison, to see that it is found."`
}

// scaleFlag is the argument of --scale. It reads the argument itself: -1 is a
// number that is too low, and not a flag.
type scaleFlag float64

func (f *scaleFlag) Decode(c *kong.DecodeContext) error {
	const wanted = "a number above 0 and at most 100"
	token := c.Scan.Pop()
	text := fmt.Sprint(token.Value)
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil && !token.IsValue():
		return usagef("--scale needs %s, such as 0.1", wanted)
	case err != nil || !(n > 0 && n <= 100):
		return usagef("--scale %s: it must be %s", text, wanted)
	}
	*f = scaleFlag(n)
	return nil
}

// Help is the long help.
func (demoVerb) Help() string {
	return "Shows on a real database what each pattern of the cache does, with figures measured in the run, and ends by comparing memory with the database row by row. The exit status is 1 when anything is not as it must be."
}

// disagreement is the error of a demo whose result is not as it must be. It leads
// to where that is told: the page that was printed, or the fields of the object.
func disagreement(r *demo.Result, asJSON bool) error {
	if !asJSON {
		return errors.New("the demo did not show what it should; see WRONG above")
	}
	var where []string
	if r.Unmet > 0 {
		where = append(where, fmt.Sprintf("unmet is %d: see scenes[].checks[] whose met is false", r.Unmet))
	}
	if r.Differences > 0 {
		where = append(where, fmt.Sprintf("differences is %d: see comparison[].differences", r.Differences))
	}
	return fmt.Errorf("the demo did not show what it should; in the JSON object, %s", strings.Join(where, "; "))
}

func (v demoVerb) Run(ctx context.Context, out io.Writer) (err error) {
	text := string(v.Store)
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

	o := demo.Options{Database: guest.database(v.Store == ""), Out: out, Terminal: isTerminal(out), Scale: float64(v.Scale), Tamper: v.Tamper}
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
		return disagreement(result, v.JSON)
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
