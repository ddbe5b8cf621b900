//go:build !unix

package sqlitestore

// writeback leaves a file's dirty pages to the checkpoint that is to come: here
// there is no way to SQLite's own handle of the file.
type writeback struct{ path string }

func (w *writeback) flush() {}
