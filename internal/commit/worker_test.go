package commit

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// goroutine names the running one.
func goroutine() string {
	stack := make([]byte, 64)
	name, _, _ := bytes.Cut(stack[:runtime.Stack(stack, false)], []byte(" ["))
	return string(name)
}

// A database's stack is deep, and a goroutine that is new grows its own for every
// commit.
func TestAWorkerTakesOneBatchAfterAnother(t *testing.T) {
	const places, batches = 2, 50
	var mu sync.Mutex
	workers := make(map[string]bool)
	ran := make(chan struct{}, places)
	q := New(Config[int, string]{MaxOps: 1, InFlight: places, Limit: batches, MaxWait: time.Hour, Run: func([]*Op[int, string]) {
		mu.Lock()
		workers[goroutine()] = true
		mu.Unlock()
		ran <- struct{}{}
	}})
	for i := range batches {
		if err := q.Submit(&Op[int, string]{Keys: []int{i}, Item: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		<-ran
	}
	for i := range batches {
		if err := q.Submit(&Op[int, string]{Keys: []int{i}, Item: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for range batches {
		<-ran
	}
	<-q.Close()
	if len(workers) > places {
		t.Errorf("%d goroutines for %d places", len(workers), places)
	}
}
