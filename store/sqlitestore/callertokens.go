package sqlitestore

import "strings"

// endsTransaction tells whether the SQL has a statement that would end the
// transaction, or begin another. A statement is told by its first words, as
// SQLite's grammar has them: comments and white space may stand before them and
// between them, and a semicolon inside a string, a quoted name or a comment ends
// nothing. What SQLite would not parse may be told either way.
func endsTransaction(query string) bool {
	var words [3]string // the statement's first words; of what is not a word, ""
	n := 0
	ends := func() bool {
		switch strings.ToUpper(words[0]) {
		case "COMMIT", "END", "BEGIN":
			return true
		case "ROLLBACK":
			// ROLLBACK TO a savepoint stays inside.
			to := words[1]
			if strings.EqualFold(to, "TRANSACTION") {
				to = words[2]
			}
			return !strings.EqualFold(to, "TO")
		}
		return false
	}
	for s := query; s != ""; {
		token, rest := nextToken(s)
		switch {
		case token == ";":
			if ends() {
				return true
			}
			words, n = [3]string{}, 0
		case token != "":
			if n < len(words) && isLetter(token[0]) {
				words[n] = token
			}
			n++
		}
		s = rest
	}
	return ends()
}

// nextToken takes one token off the SQL: a word, a semicolon, something quoted,
// or one byte of anything else. It is empty for white space and comments.
func nextToken(s string) (token, rest string) {
	switch c := s[0]; {
	case strings.IndexByte(" \t\n\v\f\r", c) >= 0 || strings.HasPrefix(s, "\ufeff"):
		// SQLite takes a vertical tab for white space after other white space only,
		// and parses nothing that has it elsewhere.
		return "", strings.TrimLeft(s, " \t\n\v\f\r\ufeff")
	case strings.HasPrefix(s, "--"):
		_, rest, _ = strings.Cut(s, "\n")
		return "", rest
	case strings.HasPrefix(s, "/*"):
		_, rest, _ = strings.Cut(s[2:], "*/")
		return "", rest
	case c == '\'' || c == '"' || c == '`':
		// A doubled quote inside is two things quoted side by side, which ends no
		// statement either.
		if end := strings.IndexByte(s[1:], c); end >= 0 {
			return s[:end+2], s[end+2:]
		}
		return s, ""
	case c == '[':
		if end := strings.IndexByte(s, ']'); end >= 0 {
			return s[:end+1], s[end+1:]
		}
		return s, ""
	case isLetter(c):
		end := wordEnd(s)
		return s[:end], s[end:]
	case strings.IndexByte("$@:#", c) >= 0:
		// A parameter. The name may have a suffix in parentheses, as Tcl's variables
		// have, in which quotes and semicolons are part of the name.
		end := wordEnd(s)
		if strings.HasPrefix(s[end:], "(") {
			if n := strings.IndexAny(s[end:], ") \t\n\v\f\r"); n >= 0 {
				end += n + 1
			}
		}
		return s[:end], s[end:]
	default:
		return s[:1], s[1:]
	}
}

// wordEnd is where the word ends that s begins with, whatever its first byte is.
// Two colons are part of a parameter's name in SQLite, and begin another token
// here, which ends no statement either.
func wordEnd(s string) int {
	end := 1
	for end < len(s) && (isLetter(s[end]) || s[end] >= '0' && s[end] <= '9' || s[end] == '$') {
		end++
	}
	return end
}

// isLetter is SQLite's: whatever is not ASCII is one.
func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
