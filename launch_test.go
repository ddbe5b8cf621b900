package lockstep

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// A reader who has asked, and has not begun its load when the cache is closed,
// takes those with it who wait for that load's end. No hook runs in that moment,
// so the test stands in for the reader.
func TestAReaderOvertakenByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(FromFunc(func(context.Context, string) (int, error) { return 1, nil }), Options[string, int]{})
		if err != nil {
			t.Fatal(err)
		}
		reader, start, _ := c.gate.Join("k", nil)
		if !start {
			t.Fatal("the load is somebody else's")
		}
		refreshed := make(chan error, 1)
		go func() { refreshed <- c.Refresh(t.Context(), "k") }()
		synctest.Wait() // it waits for a load that starts after the reader's
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		c.launch(t.Context(), reader)
		<-reader.Done()
		if _, err := reader.Result(); !errors.Is(err, ErrClosed) {
			t.Errorf("the reader got %v", err)
		}
		if err := <-refreshed; !errors.Is(err, ErrClosed) {
			t.Errorf("Refresh: %v", err)
		}
		c.gate.Leave(reader, nil)
	})
}
