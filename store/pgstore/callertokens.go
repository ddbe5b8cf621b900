package pgstore

import "strings"

// staysInside refuses SQL that ends the transaction, or that does nothing but to the
// session. It knows the statements that do neither, by their first words; what it does
// not know it refuses, for a server's next version may have more. stays is false for
// one that may leave something in the session beside what it does.
//
// A semicolon separates statements, which the server takes several of where there are
// no arguments; one inside a string, a quoted name or a comment does not.
func staysInside(query string) (stays bool, err error) {
	stays = true
	var words [3]string // the statement's first words; of what is not a word, ""
	n := 0
	for s := query; s != ""; {
		token, rest := nextToken(s)
		switch {
		case token == ";":
			if err := admits(words, n, &stays); err != nil {
				return stays, err
			}
			words, n = [3]string{}, 0
		case token == "(" && n == 0: // (SELECT …) UNION …
		case token != "":
			word := strings.ToUpper(token)
			if n < len(words) && isLetter(token[0]) {
				words[n] = word
			}
			n++
			stays = stays && !lasts(strings.Trim(word, `"`))
		}
		s = rest
	}
	return stays, admits(words, n, &stays)
}

// lasts tells whether a name stands for something that outlasts the transaction. One
// with escapes, U&"…", may be any. A search path may be a string.
func lasts(word string) bool {
	switch word {
	case "SET_CONFIG", "PG_SETTINGS", "TEMP", "TEMPORARY", "HOLD":
		return true
	}
	return strings.HasPrefix(word, `U&"`) || strings.Contains(word, "PG_TEMP") || strings.HasPrefix(word, "PG_ADVISORY_LOCK") || strings.HasPrefix(word, "PG_TRY_ADVISORY_LOCK") ||
		strings.HasPrefix(word, "DBLINK")
}

// admits decides one statement of n tokens.
func admits(words [3]string, n int, stays *bool) error {
	switch words[0] {
	case "SELECT", "WITH", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY",
		"SAVEPOINT", "RELEASE", "LOCK", "SHOW", "EXPLAIN", "DECLARE", "FETCH", "MOVE", "CLOSE", "NOTIFY",
		"CREATE", "ALTER", "DROP", "COMMENT", "GRANT", "REVOKE", "ANALYZE", "REFRESH":
		return nil
	case "DO", "CALL":
		*stays = false // whatever it does, it cannot end a transaction that it has not begun
		return nil
	case "ROLLBACK":
		// To a savepoint.
		to := words[1]
		if to == "WORK" || to == "TRANSACTION" {
			to = words[2]
		}
		if to == "TO" {
			return nil
		}
		return errEnds
	case "COMMIT", "END", "ABORT", "BEGIN", "START":
		return errEnds
	case "PREPARE":
		if words[1] == "TRANSACTION" {
			return errEnds
		}
		return errStay
	case "SET":
		switch {
		case words[1] == "CONSTRAINTS", words[1] == "LOCAL" && words[2] != "TRANSACTION":
			return nil
		case words[1] == "LOCAL", words[1] == "TRANSACTION":
			return invalid("the transaction runs at READ COMMITTED, and writes")
		}
		return errStay
	case "RESET", "LISTEN", "UNLISTEN", "EXECUTE", "DEALLOCATE", "DISCARD", "LOAD":
		return errStay
	}
	// A lone word is the name of a statement that pgx has prepared.
	if n == 0 || n == 1 && words[0] != "" {
		return nil
	}
	return errNotHere
}

// nextToken takes one token off the SQL: a word, a semicolon, something quoted, or one
// byte of anything else. It is empty for white space and comments. It reads as the
// server does with standard_conforming_strings on.
func nextToken(s string) (token, rest string) {
	switch c := s[0]; {
	case isSpace(c):
		return "", strings.TrimLeft(s, spaces)
	case strings.HasPrefix(s, "--"):
		return "", s[lineEnd(s):]
	case strings.HasPrefix(s, "/*"):
		return "", s[commentEnd(s):]
	case c == '\'' || c == '"':
		end := quoteEnd(s, false)
		return s[:end], s[end:]
	case (c == 'e' || c == 'E') && len(s) > 1 && s[1] == '\'':
		end := 1 + quoteEnd(s[1:], true)
		return s[1:end], s[end:]
	case c == '$':
		if end := dollarEnd(s); end > 0 {
			return s[:end], s[end:]
		}
		return s[:1], s[1:]
	case (c == 'u' || c == 'U') && strings.HasPrefix(s[1:], `&"`):
		end := 2 + quoteEnd(s[2:], false)
		return s[:end], s[end:]
	case isLetter(c):
		end := 1
		for end < len(s) && (isLetter(s[end]) || s[end] >= '0' && s[end] <= '9' || s[end] == '$') {
			end++
		}
		return s[:end], s[end:]
	default:
		return s[:1], s[1:]
	}
}

// quoteEnd is where the string or the quoted name ends that s begins with. A doubled
// quote inside is two things quoted side by side, which ends no statement either. A
// string with escapes goes on, as such, after white space with a line's end in it.
func quoteEnd(s string, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] != s[0]:
		case !escapes:
			return i + 1
		case i+1 < len(s) && s[i+1] == s[0]:
			i++
		default:
			next := i + 1 + gap(s[i+1:])
			if next >= len(s) || s[next] != s[0] || !strings.ContainsAny(s[i:next], "\n\r") {
				return i + 1
			}
			i = next
		}
	}
	return len(s)
}

// gap is the length of the white space and line comments that s begins with.
func gap(s string) int {
	for i := 0; ; {
		switch rest := s[i:]; {
		case rest != "" && isSpace(rest[0]):
			i++
		case strings.HasPrefix(rest, "--"):
			i += lineEnd(rest)
		default:
			return i
		}
	}
}

// dollarEnd is where the string ends that s begins with, quoted by $tag$; 0 if there
// is none.
func dollarEnd(s string) int {
	open := strings.IndexByte(s[1:], '$')
	if open < 0 {
		return 0
	}
	tag := s[:open+2]
	for i, c := range []byte(tag[1 : len(tag)-1]) {
		if !isLetter(c) && (i == 0 || c < '0' || c > '9') {
			return 0
		}
	}
	if end := strings.Index(s[len(tag):], tag); end >= 0 {
		return 2*len(tag) + end
	}
	return len(s)
}

// commentEnd: they nest.
func commentEnd(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(s[i:], "*/"):
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

func lineEnd(s string) int {
	if end := strings.IndexAny(s, "\n\r"); end >= 0 {
		return end
	}
	return len(s)
}

const spaces = " \t\n\v\f\r"

func isSpace(c byte) bool { return strings.IndexByte(spaces, c) >= 0 }

// isLetter is PostgreSQL's: whatever is not ASCII is one.
func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
