package demo

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// count is a number with its thousands apart.
func count[N ~int | ~int64 | ~uint64](n N) string {
	digits := strconv.FormatInt(int64(n), 10)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// money is an amount of cents.
func money(cents int64) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%s.%02d", sign, count(cents/100), cents%100)
}

// ratio is a/b, and 0 where b is.
func ratio[N ~int64 | ~float64](a, b N) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// percent is a part of one.
func percent(part float64) string { return fmt.Sprintf("%.1f %%", 100*part) }

// span is a duration with three digits that mean something.
func span(d time.Duration) string {
	value, unit := float64(d), "ns"
	for _, larger := range []string{"µs", "ms", "s"} {
		if value < 999.5 {
			break
		}
		value, unit = value/1000, larger
	}
	decimals := 0
	if unit != "ns" && value > 0 {
		decimals = min(2, max(0, 2-int(math.Floor(math.Log10(value)))))
	}
	return fmt.Sprintf("%.*f %s", decimals, value, unit)
}

// wrap breaks text into lines of at most width characters.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// grid puts cells under each other. align has a letter for each column: l or r.
func grid(align string, rows [][]string) (lines []string) {
	widths := make([]int, len(align))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := ""
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line += "   "
			}
			if align[i] == 'r' {
				line += pad + cell
			} else {
				line += cell + pad
			}
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// Latency is what a number of operations have taken.
type Latency struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
}

// latencyOf sorts the durations, and returns their quantiles.
func latencyOf(durations []time.Duration) Latency {
	n := len(durations)
	if n == 0 {
		return Latency{}
	}
	slices.Sort(durations)
	at := func(q float64) time.Duration { return durations[int(q*float64(n-1))] }
	return Latency{Count: n, P50: at(0.50), P99: at(0.99)}
}

// plural is a number of things.
func plural[N ~int | ~int64 | ~uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return count(n) + " " + thing + "s"
}
