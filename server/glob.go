package server

// glob tells whether a text matches a pattern of Redis's: * is anything, ? one byte, [a-c]
// one of those, [^a-c] none of them, and a backslash takes the meaning off what follows.
// Small and capital letters are the same when fold is set. The time that it takes is at
// most the product of both lengths: only the last star is tried again.
func glob(pattern, text []byte, fold bool) bool {
	if len(text) == 0 {
		return len(pattern) == 0 // not even a star: that is what Redis does
	}
	p, t := 0, 0
	star, retry := -1, 0 // after the last star, and where in the text it is tried next
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, retry = p, t
			continue
		}
		if p < len(pattern) {
			if next, ok := globOne(pattern, p, text[t], fold); ok {
				p, t = next, t+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		retry++
		p, t = star, retry
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one byte with what is at p in the pattern, which is no star, and returns
// what follows that.
func globOne(pattern []byte, p int, b byte, fold bool) (next int, ok bool) {
	lower := func(b byte) byte {
		if fold && 'A' <= b && b <= 'Z' {
			return b + 'a' - 'A'
		}
		return b
	}
	b = lower(b)
	switch c := pattern[p]; {
	case c == '?':
		return p + 1, true
	case c == '\\' && p+1 < len(pattern):
		return p + 2, lower(pattern[p+1]) == b
	case c != '[':
		return p + 1, lower(c) == b
	}
	p++
	not := p < len(pattern) && pattern[p] == '^'
	if not {
		p++
	}
	found := false
	for ; p < len(pattern) && pattern[p] != ']'; p++ {
		switch {
		case pattern[p] == '\\' && p+1 < len(pattern):
			p++
			found = found || lower(pattern[p]) == b
		case p+2 < len(pattern) && pattern[p+1] == '-':
			from, to := lower(pattern[p]), lower(pattern[p+2])
			found = found || min(from, to) <= b && b <= max(from, to)
			p += 2
		default:
			found = found || lower(pattern[p]) == b
		}
	}
	if p < len(pattern) {
		p++ // the bracket; one that is left out at the end is forgiven
	}
	return p, found != not
}
