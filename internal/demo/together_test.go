package demo

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEachWayThatAWriteEndsHasItsColumn(t *testing.T) {
	var out strings.Builder
	s := &stage{page: page{out: &out, unwanted: wanted}, scene: &Scene{}}
	f := &TogetherFigures{Charges: Tally{Committed: 60_000, Refused: 11, Conflicts: 22, Unavailable: 33, Unknown: 44, Applied: 40}}
	f.show(s)
	for line := range strings.Lines(out.String()) {
		if width := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > pageWidth {
			t.Errorf("a line of %d characters: %q", width, line)
		}
		if cells := strings.Fields(line); len(cells) > 0 && cells[0] == "fees" {
			if got, want := strings.Join(cells[1:], " "), "60,000 11 22 33 44 40"; got != want {
				t.Errorf("the row is %q, want %q", got, want)
			}
			return
		}
	}
	t.Errorf("no row is called as the text calls it:\n%s", out.String())
}
