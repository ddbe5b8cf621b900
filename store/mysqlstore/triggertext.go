package mysqlstore

import (
	"slices"
	"strings"
)

// What a trigger's text says that it writes. It is read generously: whatever stands
// where the tables of an UPDATE or a DELETE do counts as written, a table that is only
// joined included.

// objectName is a table's or a procedure's name; schema is empty where it has none.
type objectName struct{ schema, name string }

func (n objectName) in(schema string) string {
	if n.schema != "" {
		schema = n.schema
	}
	return quote(schema) + "." + quote(n.name)
}

// written returns the tables that the statements of a body write, and the procedures
// that it calls.
func written(body string) (tables, calls []objectName) {
	tokens := sqlTokens(body)
	for i := 0; i < len(tokens); i++ {
		switch tokens[i].word() {
		case "CALL":
			if name, n := nameAt(tokens, i+1); n > 0 {
				calls = append(calls, name)
			}
		case "INSERT", "REPLACE":
			// There are functions of these names, too.
			next := i + 1
			for next < len(tokens) && slices.Contains(modifiers, tokens[next].word()) {
				next++
			}
			if name, n := nameAt(tokens, next); n > 0 {
				tables = append(tables, name)
			}
		case "UPDATE", "DELETE":
			for i++; i < len(tokens) && !slices.Contains(tablesEnd, tokens[i].word()); {
				name, n := nameAt(tokens, i)
				if n > 0 && (tokens[i].quoted || !slices.Contains(modifiers, tokens[i].word())) {
					tables = append(tables, name)
				}
				i += max(n, 1)
			}
		}
	}
	return tables, calls
}

var (
	modifiers = strings.Fields("LOW_PRIORITY HIGH_PRIORITY DELAYED QUICK IGNORE INTO FROM")
	tablesEnd = strings.Fields("SET WHERE ORDER LIMIT RETURNING ; END")
)

// nameAt reads a name, with or without a schema, and tells how many tokens it takes.
func nameAt(tokens []sqlToken, i int) (name objectName, n int) {
	if i >= len(tokens) || !tokens[i].name() {
		return name, 0
	}
	if i+2 < len(tokens) && tokens[i+1].text == "." && tokens[i+2].name() {
		return objectName{tokens[i].text, tokens[i+2].text}, 3
	}
	return objectName{"", tokens[i].text}, 1
}

type sqlToken struct {
	text   string
	quoted bool // in backquotes, or in double ones, which ANSI_QUOTES makes a name
}

// word is a token that may be a keyword, in capitals.
func (t sqlToken) word() string {
	if t.quoted {
		return ""
	}
	return strings.ToUpper(t.text)
}

func (t sqlToken) name() bool {
	return t.quoted || t.text != "" && plainName([]rune(t.text)[0])
}

// sqlTokens splits a text at what is no name; strings and comments are left out, but
// for comments that the server takes for code.
func sqlTokens(s string) (tokens []sqlToken) {
	for s != "" {
		switch {
		case strings.HasPrefix(s, "/*!"), strings.HasPrefix(s, "/*M!"):
			s = strings.TrimLeft(s, "/*M!0123456789")
		case strings.HasPrefix(s, "/*"):
			_, s, _ = strings.Cut(s[2:], "*/")
		case s[0] == '#', strings.HasPrefix(s, "-- "), strings.HasPrefix(s, "--\t"), strings.HasPrefix(s, "--\n"):
			_, s, _ = strings.Cut(s, "\n")
		case s[0] == '\'' || s[0] == '"' || s[0] == '`':
			var inner string
			quote := s[0]
			inner, s = untilQuote(s[1:], quote)
			if quote != '\'' {
				tokens = append(tokens, sqlToken{inner, true})
			}
		default:
			end := strings.IndexFunc(s, func(r rune) bool { return !plainName(r) })
			switch {
			case end < 0:
				end = len(s)
			case end == 0:
				end = 1
			}
			if word := strings.TrimSpace(s[:end]); word != "" {
				tokens = append(tokens, sqlToken{word, false})
			}
			s = s[end:]
		}
	}
	return tokens
}

// untilQuote reads up to the quote that ends a string or a name.
func untilQuote(s string, quote byte) (inner, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote != '`' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] != quote:
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == quote:
			i++
			b.WriteByte(quote)
		default:
			return b.String(), s[i+1:]
		}
	}
	return b.String(), ""
}
