// Package text is how figures, tables and paragraphs look in a terminal.
package text

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Count is a number with its thousands apart.
func Count[N ~int | ~int64 | ~uint64](n N) string {
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

// Percent is a part of one.
func Percent(part float64) string { return fmt.Sprintf("%.1f %%", 100*part) }

// Span is a duration with three digits that mean something.
func Span(d time.Duration) string {
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

// Wrap breaks text into lines of at most width characters.
func Wrap(text string, width int) (lines []string) {
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

// Grid puts cells under each other. align has a letter for each column: l or r.
func Grid(align string, rows [][]string) (lines []string) { return GridApart("   ", align, rows) }

// GridApart is Grid with another gap between the columns.
func GridApart(gap, align string, rows [][]string) (lines []string) {
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
				line += gap
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

// Plural is a number of things.
func Plural[N ~int | ~int64 | ~uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return Count(n) + " " + thing + "s"
}
