package mysqlstore

import "strings"

// staysInside refuses SQL that ends the transaction, or might. It knows those that
// do not, by their first words; what it does not know it refuses, for a server's
// next version may commit implicitly where this one does not.
//
// A semicolon separates statements, should the DSN allow several; one inside a
// string, a quoted name or a comment does not. A comment that the server executes
// (/*! … */) is refused wherever it stands.
func staysInside(query string) error {
	var words [2]string // the statement's first words; of what is not a word, ""
	n := 0
	for s := query; s != ""; {
		token, rest := nextToken(s)
		switch {
		case strings.HasPrefix(token, "/*"), strings.EqualFold(token, "RELEASE_ALL_LOCKS"):
			return errNotHere
		case token == ";":
			if err := admits(words, n); err != nil {
				return err
			}
			words, n = [2]string{}, 0
		case token == "(" && n == 0: // (SELECT …) UNION …
		case token != "":
			if n < len(words) {
				words[n] = strings.ToUpper(token)
			}
			n++
		}
		s = rest
	}
	return admits(words, n)
}

// admits decides one statement of n tokens.
func admits(words [2]string, n int) error {
	switch words[0] {
	case "SELECT", "WITH", "VALUES", "TABLE", "INSERT", "REPLACE", "UPDATE", "DELETE", "DO",
		"SHOW", "EXPLAIN", "DESCRIBE", "DESC", "SAVEPOINT":
		return nil
	case "RELEASE": // SAVEPOINT
		return nil
	case "ROLLBACK":
		// To a savepoint; ROLLBACK WORK TO is the same, and nobody writes it.
		if words[1] == "TO" {
			return nil
		}
		return errEnds
	case "CREATE", "DROP":
		if words[1] == "TEMPORARY" {
			return nil
		}
		return errNotHere
	case "COMMIT", "BEGIN", "START":
		return errEnds
	}
	if n == 0 {
		return nil
	}
	return errNotHere
}

// nextToken takes one token off the SQL: a word, a semicolon, something quoted, a
// comment that is executed, or one byte of anything else. It is empty for white
// space and other comments.
func nextToken(s string) (token, rest string) {
	switch c := s[0]; {
	case strings.IndexByte(" \t\n\v\f\r", c) >= 0:
		return "", strings.TrimLeft(s, " \t\n\v\f\r")
	case c == '#', strings.HasPrefix(s, "--") && (len(s) == 2 || s[2] <= ' '):
		_, rest, _ = strings.Cut(s, "\n")
		return "", rest
	case strings.HasPrefix(s, "/*!"), strings.HasPrefix(s, "/*M!"):
		return "/*!", ""
	case strings.HasPrefix(s, "/*"):
		_, rest, _ = strings.Cut(s[2:], "*/")
		return "", rest
	case c == '\'' || c == '"' || c == '`':
		// A doubled quote inside is two things quoted side by side, which ends no
		// statement either.
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\\' && c != '`':
				i++
			case s[i] == c:
				return s[:i+1], s[i+1:]
			}
		}
		return s, ""
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

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
