package demo

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func wanted() error { return nil }

func TestPage(t *testing.T) {
	var out strings.Builder
	p := &page{out: &out, unwanted: wanted}
	p.headline("A headline")
	p.say("A paragraph of %d words.", 5)
	p.show("lr", []string{"rows", "12"}, []string{"hits", "7"})
	p.tick(true, "this was so")
	p.tick(false, "this was not")
	p.quote("somebody's words")
	want := `
A headline

   A paragraph of 5 words.

     rows   12
     hits    7

   ok    this was so
   WRONG this was not

     │ somebody's words
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestPageOnATerminalHasColoursAndTakesItsProgressBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		p := &page{out: &out, terminal: true, unwanted: wanted}
		p.tick(true, "fine")
		done := p.progress("working")
		<-time.After(time.Second + time.Millisecond)
		done()
		done()
		got := out.String()
		if !strings.Contains(got, green) || !strings.Contains(got, "working … 1.0 s") || !strings.HasSuffix(got, erase) {
			t.Errorf("%q", got)
		}
	})
}

func TestPageElsewhereShowsNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		done := (&page{out: &out, unwanted: wanted}).progress("working")
		<-time.After(time.Second)
		done()
		if out.Len() > 0 {
			t.Errorf("%q", out.String())
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestPageTakesNothingAfterAnError(t *testing.T) {
	p := &page{out: broken{}, unwanted: wanted}
	p.line("first")
	if p.err == nil || p.err.Error() != "broken" {
		t.Errorf("the error is %v", p.err)
	}
	var out strings.Builder
	p = &page{out: &out, unwanted: func() error { return errors.New("interrupted") }}
	p.say("never mind")
	if out.Len() > 0 || p.err == nil || p.err.Error() != "interrupted" {
		t.Errorf("printed %q, the error is %v", out.String(), p.err)
	}
}
