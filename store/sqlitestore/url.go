package sqlitestore

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// URL is what a `--store` argument for this package says.
type URL struct {
	// Path is the database file's.
	Path string
	// Table is the key-value table's name; empty for the default.
	Table string
	// Codec is json, cbor or raw; empty for the program's own choice.
	Codec    string
	Database DatabaseOptions
}

const scheme = "sqlite:"

// ParseURL reads
//
//	sqlite:PATH[?option=value&…]
//
// PATH is relative or absolute; sqlite:///var/app.db is the same file as
// sqlite:/var/app.db. A ?, a # and a % in it are written %3F, %23 and %25. The
// options, each at most once:
//
//	table                    the table's name
//	codec                    json, cbor or raw
//	readers                  DatabaseOptions.Readers
//	checkpoint-bytes         DatabaseOptions.CheckpointBytes
//	page-size                DatabaseOptions.PageSize
//	allow-unsafe-durability  true or false
//
// The error is ErrInvalid and names the part that is wrong. It opens nothing.
func ParseURL(s string) (URL, error) {
	rest, ok := strings.CutPrefix(s, scheme)
	if !ok {
		return URL{}, invalid("%q does not start with %s", s, scheme)
	}
	if strings.Contains(rest, "#") {
		return URL{}, invalid("%q has a #; in a path it is written %%23", s)
	}
	rest, query, _ := strings.Cut(rest, "?")
	if strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
		return URL{}, invalid("%q names a host; a path follows sqlite: directly", s)
	}
	rest = strings.TrimPrefix(rest, "//")
	path, err := url.PathUnescape(rest)
	if err != nil {
		return URL{}, invalid("the path of %q: %w", s, err)
	}
	if path == "" || path == ":memory:" || strings.ContainsRune(path, 0) {
		return URL{}, invalid("%q names no file", s)
	}
	u := URL{Path: path}
	options, err := url.ParseQuery(query)
	if err != nil {
		return URL{}, invalid("the options of %q: %w", s, err)
	}
	for name, values := range options {
		if len(values) > 1 {
			return URL{}, invalid("%q gives the option %s %d times", s, name, len(values))
		}
		if err := u.set(name, values[0]); err != nil {
			return URL{}, invalid("%q: the option %s: %w", s, name, err)
		}
	}
	return u, nil
}

func (u *URL) set(name, value string) (err error) {
	switch name {
	case "table":
		u.Table = value
		return checkTableName(value)
	case "codec":
		u.Codec = value
		if !slices.Contains([]string{"json", "cbor", "raw"}, value) {
			return fmt.Errorf("%q is none of json, cbor, raw", value)
		}
		return nil
	case "readers":
		if u.Database.Readers, err = strconv.Atoi(value); err == nil && (u.Database.Readers < 1 || u.Database.Readers > maxReaders) {
			err = fmt.Errorf("%d is not from 1 to %d", u.Database.Readers, maxReaders)
		}
		return err
	case "checkpoint-bytes":
		if u.Database.CheckpointBytes, err = strconv.ParseInt(value, 10, 64); err == nil && u.Database.CheckpointBytes < 1 {
			err = fmt.Errorf("%d is less than 1", u.Database.CheckpointBytes)
		}
		return err
	case "page-size":
		if u.Database.PageSize, err = strconv.Atoi(value); err == nil && !isPageSize(u.Database.PageSize) {
			err = fmt.Errorf("%d is no power of two from 512 to 65536", u.Database.PageSize)
		}
		return err
	case "allow-unsafe-durability":
		u.Database.AllowUnsafeDurability, err = strconv.ParseBool(value)
		return err
	}
	return fmt.Errorf("it is unknown")
}

// String returns the URL as ParseURL takes it.
func (u URL) String() string {
	segments := strings.Split(u.Path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	s := scheme + strings.Join(segments, "/")
	if strings.HasPrefix(u.Path, "//") {
		s = scheme + "//" + strings.Join(segments, "/")
	}
	q := url.Values{}
	if u.Table != "" {
		q.Set("table", u.Table)
	}
	if u.Codec != "" {
		q.Set("codec", u.Codec)
	}
	if u.Database.Readers != 0 {
		q.Set("readers", strconv.Itoa(u.Database.Readers))
	}
	if u.Database.CheckpointBytes != 0 {
		q.Set("checkpoint-bytes", strconv.FormatInt(u.Database.CheckpointBytes, 10))
	}
	if u.Database.PageSize != 0 {
		q.Set("page-size", strconv.Itoa(u.Database.PageSize))
	}
	if u.Database.AllowUnsafeDurability {
		q.Set("allow-unsafe-durability", "true")
	}
	if len(q) > 0 {
		s += "?" + q.Encode()
	}
	return s
}
