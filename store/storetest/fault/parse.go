package fault

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lockstep-cache/lockstep"
)

// SyntaxError says what is wrong in a script, and where. It is
// lockstep.ErrInvalid.
type SyntaxError struct {
	// Line and Column are counted from 1, columns in characters.
	Line, Column int
	// Problem is a sentence without the place.
	Problem string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("fault script %d:%d: %s", e.Line, e.Column, e.Problem)
}

// Is makes errors.Is(err, lockstep.ErrInvalid) true.
func (e *SyntaxError) Is(target error) bool { return target == lockstep.ErrInvalid }

// MustParse is ParseScript for scripts in a program's text: it panics on error.
func MustParse(text string) Script {
	script, err := ParseScript(text)
	if err != nil {
		panic(err)
	}
	return script
}

// ParseScript reads a script; the package's documentation has the language. Its
// error is a *SyntaxError.
func ParseScript(text string) (Script, error) {
	var script Script
	for n, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		p := parser{line: n + 1, tokens: tokens(line)}
		for !p.at("") {
			if p.at(";") {
				p.next()
				continue
			}
			st, err := p.statement()
			if err != nil {
				return Script{}, err
			}
			script.statements = append(script.statements, st)
		}
	}
	return script, nil
}

// token is a word or a mark of punctuation; the end of a line is an empty one.
type token struct {
	text   string
	column int
}

const marks = ":,;"

func tokens(line string) []token {
	var list []token
	column, inWord := 0, false
	for rest := line; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		char := rest[:size]
		rest = rest[size:]
		column++
		switch {
		case unicode.IsSpace(r):
			inWord = false
		case strings.ContainsRune(marks, r):
			list = append(list, token{char, column})
			inWord = false
		case inWord:
			list[len(list)-1].text += char
		default:
			list = append(list, token{char, column})
			inWord = true
		}
	}
	return append(list, token{"", column + 1})
}

type parser struct {
	line   int
	tokens []token // what is left of the line; its end stays
}

func (p *parser) at(text string) bool { return p.tokens[0].text == text }

func (p *parser) next() token {
	t := p.tokens[0]
	if t.text != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) errorf(t token, format string, args ...any) error {
	return &SyntaxError{Line: p.line, Column: t.column, Problem: fmt.Sprintf(format, args...)}
}

// unexpected says what was found in the place of something else.
func (p *parser) unexpected(t token, want string) error {
	if t.text == "" {
		return p.errorf(t, "the line ends, want %s", want)
	}
	return p.errorf(t, "%q, want %s", t.text, want)
}

func (p *parser) statement() (st statement, err error) {
	word := p.next()
	for st.op = 0; st.op < ops && opNames[st.op] != word.text; st.op++ {
	}
	if st.op == ops {
		return st, p.unexpected(word, "an operation: "+strings.Join(opNames[:], ", "))
	}
	if st.which, err = p.which(); err != nil {
		return st, err
	}
	if colon := p.next(); colon.text != ":" {
		return st, p.unexpected(colon, "a colon")
	}
	if st.fault, err = p.fault(st.op); err != nil {
		return st, err
	}
	for p.at(",") {
		p.next()
		if err := p.detail(&st.fault); err != nil {
			return st, err
		}
	}
	if !p.at(";") && !p.at("") {
		return st, p.unexpected(p.next(), "the end of the statement")
	}
	return st, nil
}

func (p *parser) which() (which, error) {
	all := which{first: 1, last: math.MaxInt, step: 1, probability: 1}
	word := p.next()
	switch {
	case word.text == "*":
		return all, nil
	case word.text == "every":
		var err error
		all.step, err = p.number(p.next())
		return all, err
	case strings.HasSuffix(word.text, "%"):
		percent, err := strconv.ParseFloat(strings.TrimSuffix(word.text, "%"), 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return all, p.unexpected(word, "a percentage from 0% to 100%")
		}
		all.probability = percent / 100
		return all, nil
	}
	from, to, isRange := strings.Cut(word.text, "..")
	var err error
	if all.first, err = p.number(token{from, word.column}); err != nil {
		return all, p.unexpected(word, `which ones: 3, 3..5, 3.., every 3, 10% or *`)
	}
	if all.last = all.first; isRange {
		all.last = math.MaxInt
	}
	if to != "" {
		at := token{to, word.column + utf8.RuneCountInString(from) + len("..")}
		if all.last, err = p.number(at); err != nil {
			return all, err
		}
		if all.last < all.first {
			return all, p.errorf(at, "the range ends at %d, before it starts at %d", all.last, all.first)
		}
	}
	return all, nil
}

func (p *parser) number(t token) (int, error) {
	n, err := strconv.ParseUint(t.text, 10, 31)
	if err != nil || n == 0 {
		return 0, p.unexpected(t, "a number from 1 on")
	}
	return int(n), nil
}

func (p *parser) fault(op Op) (f fault, err error) {
	word := p.next()
	switch word.text {
	case "latency":
		f.kind = latency
		f.shortest, f.longest, err = p.durations(p.next())
		return f, err
	case "fail":
		f.kind = fail
	case "refuse":
		f.kind = refuse
	case "hang", "panic":
		if f.kind = hang; word.text == "panic" {
			f.kind = panicking
		}
		if f.after = p.at("after"); f.after {
			p.next()
		}
	case "lose":
		what := p.next()
		switch what.text {
		case "request":
			f.kind = loseRequest
		case "reply":
			f.kind = loseReply
		default:
			return f, p.unexpected(what, "request or reply")
		}
		if op != Commit {
			return f, p.errorf(word, "only a commit can be lost, a %s fails", op)
		}
	default:
		return f, p.unexpected(word, "a fault: latency, fail, refuse, hang, panic, lose request, lose reply")
	}
	return f, nil
}

func (p *parser) detail(f *fault) error {
	word := p.next()
	switch {
	case word.text == "late":
		if f.kind != loseReply {
			return p.errorf(word, "only a lost reply can be late")
		}
		if f.late {
			return p.errorf(word, "it is late already")
		}
		f.late = true
	case word.text == "forget":
		if f.kind != loseRequest && f.kind != loseReply {
			return p.errorf(word, "only what was lost can be forgotten")
		}
		if f.forget != forgetNothing {
			return p.errorf(word, "something is forgotten already")
		}
		switch what := p.next(); what.text {
		case "rows":
			f.forget = forgetRows
		case "outcome":
			f.forget = forgetOutcome
		default:
			return p.unexpected(what, "rows or outcome")
		}
	default:
		return p.unexpected(word, "a detail: late, forget rows, forget outcome")
	}
	return nil
}

func (p *parser) durations(t token) (shortest, longest time.Duration, err error) {
	from, to, isRange := strings.Cut(t.text, "..")
	if shortest, err = p.duration(token{from, t.column}); err != nil || !isRange {
		return shortest, shortest, err
	}
	at := token{to, t.column + utf8.RuneCountInString(from) + len("..")}
	if longest, err = p.duration(at); err != nil {
		return 0, 0, err
	}
	if longest < shortest {
		return 0, 0, p.errorf(at, "the range ends at %v, before it starts at %v", longest, shortest)
	}
	return shortest, longest, nil
}

// maxLatency keeps sums of latencies far from overflowing.
const maxLatency = 24 * time.Hour

func (p *parser) duration(t token) (time.Duration, error) {
	d, err := time.ParseDuration(t.text)
	if err != nil || d < 0 || d > maxLatency {
		return 0, p.unexpected(t, "a duration up to 24h, such as 5ms")
	}
	return d, nil
}
