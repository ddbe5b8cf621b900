package crash

import (
	"strings"
	"testing"
)

// made is the history of what a program has said: n that its call n begins, -n that it is done.
func made(calls map[int]effect, said ...int) history {
	h := history{number: 1, prefix: "1/"}
	byNumber := map[int]*call{}
	for position, n := range said {
		if n > 0 {
			byNumber[n] = &call{effect: calls[n], number: n, began: position}
			h.calls = append(h.calls, byNumber[n])
		} else {
			byNumber[-n].done, byNumber[-n].ended = true, position
		}
	}
	return h
}

func TestWhatAKillMayLeaveAndWhatNot(t *testing.T) {
	type rows = map[string]string
	write := func(pairs ...string) effect {
		e := effect{Writes: rows{}}
		for i := 0; i < len(pairs); i += 2 {
			e.Writes["1/"+pairs[i]] = pairs[i+1]
		}
		return e
	}
	add := func(name string, n int) effect { return effect{Adds: map[string]int{"1/" + name: n}} }
	transfer := write("x", "1", "y", "")
	transfer.Adds = map[string]int{"1/a": -5, "1/b": 5}
	for name, c := range map[string]struct {
		calls map[int]effect
		said  []int // -n: call n is done
		rows  rows
		fault string // "": none
	}{
		"Nothing":                  {},
		"There":                    {map[int]effect{1: write("k", "1")}, []int{1, -1}, rows{"1/k": "1"}, ""},
		"Lost":                     {map[int]effect{1: write("k", "1")}, []int{1, -1}, rows{}, `1/k is ""`},
		"LostToTheOneBefore":       {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, -1, 2, -2}, rows{"1/k": "1"}, `1/k is "1"`},
		"UnderWayAndMade":          {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, -1, 2}, rows{"1/k": "2"}, ""},
		"UnderWayAndNot":           {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, -1, 2}, rows{"1/k": "1"}, ""},
		"BothAtOnceTheFirst":       {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, 2, -1, -2}, rows{"1/k": "1"}, ""},
		"BothAtOnceTheSecond":      {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, 2, -1, -2}, rows{"1/k": "2"}, ""},
		"BothAtOnceAndNeither":     {map[int]effect{1: write("k", "1"), 2: write("k", "2")}, []int{1, 2, -1, -2}, rows{}, `1/k is ""`},
		"DeletionLost":             {map[int]effect{1: write("k", "1"), 2: write("k", "")}, []int{1, -1, 2, -2}, rows{"1/k": "1"}, `1/k is "1"`},
		"DeletionMade":             {map[int]effect{1: write("k", "1"), 2: write("k", "")}, []int{1, -1, 2, -2}, rows{}, ""},
		"FromNowhere":              {nil, nil, rows{"1/k": "1"}, "nobody wrote it"},
		"OfAnotherProgram":         {nil, nil, rows{"2/k": "1", "10/k": "1"}, ""},
		"SetWhole":                 {map[int]effect{1: write("k", "1", "l", "1")}, []int{1}, rows{"1/k": "1", "1/l": "1"}, ""},
		"SetOut":                   {map[int]effect{1: write("k", "1", "l", "1")}, []int{1}, rows{}, ""},
		"SetHalf":                  {map[int]effect{1: write("k", "1", "l", "1")}, []int{1}, rows{"1/k": "1"}, "of call 1 there is a part"},
		"SetHalfOverOthers":        {map[int]effect{1: write("k", "1"), 2: write("k", "2", "l", "2")}, []int{1, -1, 2}, rows{"1/k": "1", "1/l": "2"}, "of call 2 there is a part"},
		"AcknowledgedSetHalf":      {map[int]effect{1: write("k", "1", "l", "1")}, []int{1, -1}, rows{"1/k": "1"}, "call 1 was acknowledged"},
		"AcknowledgedSetOverlaid":  {map[int]effect{1: write("k", "1", "l", "1"), 2: write("k", "2")}, []int{1, -1, 2, -2}, rows{"1/k": "2", "1/l": "1"}, ""},
		"Counted":                  {map[int]effect{1: add("n", 1), 2: add("n", 1)}, []int{1, 2, -1}, rows{"1/n": "2"}, ""},
		"CountedWithoutUnderWay":   {map[int]effect{1: add("n", 1), 2: add("n", 1)}, []int{1, 2, -1}, rows{"1/n": "1"}, ""},
		"CountLost":                {map[int]effect{1: add("n", 1), 2: add("n", 1)}, []int{1, 2, -1, -2}, rows{"1/n": "1"}, "1/n is"},
		"CountedTwice":             {map[int]effect{1: add("n", 1)}, []int{1, -1}, rows{"1/n": "2"}, "1/n is"},
		"CountNoNumber":            {map[int]effect{1: add("n", 1)}, []int{1}, rows{"1/n": "one"}, "1/n is"},
		"TransferMade":             {map[int]effect{1: transfer}, []int{1, -1}, rows{"1/x": "1", "1/a": "-5", "1/b": "5"}, ""},
		"TransferUnderWayMade":     {map[int]effect{1: transfer}, []int{1}, rows{"1/x": "1", "1/a": "-5", "1/b": "5"}, ""},
		"TransferUnderWayNotMade":  {map[int]effect{1: transfer}, []int{1}, rows{}, ""},
		"TransferHalf":             {map[int]effect{1: transfer}, []int{1}, rows{"1/x": "1", "1/a": "-5"}, "1/b is"},
		"TransferInTheSumsAlone":   {map[int]effect{1: transfer}, []int{1}, rows{"1/a": "-5", "1/b": "5"}, "1/a is"},
		"TransferWithItsDeletion":  {map[int]effect{1: write("y", "y"), 2: transfer}, []int{1, -1, 2}, rows{"1/x": "1", "1/a": "-5", "1/b": "5"}, ""},
		"TransferLessItsDeletion":  {map[int]effect{1: write("y", "y"), 2: transfer}, []int{1, -1, 2}, rows{"1/x": "1", "1/y": "y", "1/a": "-5", "1/b": "5"}, "of call 2 there is a part"},
		"TransferItsDeletionAlone": {map[int]effect{1: write("y", "y"), 2: transfer}, []int{1, -1, 2}, rows{}, "of call 2 there is a part"},
	} {
		faults := strings.Join(made(c.calls, c.said...).faults(c.rows), "\n")
		if c.fault == "" && faults != "" || !strings.Contains(faults, c.fault) {
			t.Errorf("%s: %q; want %q", name, faults, c.fault)
		}
	}
}
