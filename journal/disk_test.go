package journal

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lockstep-cache/lockstep/store/codec"
)

func jsonOf[T any]() codec.Codec[T] { return codec.JSON[T]() }
func cborOf[T any]() codec.Codec[T] { return codec.CBOR[T]() }

var errDisk = errors.New("no space left on the device")

// badDisk fails where it is told to, and knows what a machine that loses power would have
// kept.
type badDisk struct {
	osDisk
	mu       sync.Mutex
	partly   bool // a write writes a part, and fails; guarded by mu, as what follows
	unsynced bool // a sync fails
	uncut    bool // a truncation fails
	uncreate bool
	synced   map[string]int64
}

func newBadDisk() *badDisk { return &badDisk{synced: map[string]int64{}} }

func (d *badDisk) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *badDisk) create(path string, content []byte) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uncreate {
		return nil, errDisk
	}
	f, err := d.osDisk.create(path, content)
	if err != nil {
		return nil, err
	}
	d.synced[path] = int64(len(content))
	return &badFile{file: f, d: d, path: path}, nil
}

func (d *badDisk) open(path string) (file, error) {
	f, err := d.osDisk.open(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d.set(func() {
		if _, known := d.synced[path]; !known {
			d.synced[path] = int64(len(b))
		}
	})
	return &badFile{file: f, d: d, path: path}, nil
}

type badFile struct {
	file
	d    *badDisk
	path string
}

func (f *badFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.partly {
		n, _ := f.file.Write(b[:rand.IntN(len(b)+1)])
		return n, errDisk
	}
	return f.file.Write(b)
}

func (f *badFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.unsynced {
		return errDisk
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	f.d.synced[f.path] = int64(len(b))
	return nil
}

func (f *badFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.uncut {
		return errDisk
	}
	return f.file.Truncate(size)
}

// afterPowerLoss is a directory with what is left of the files: all that was synced, and
// some of what was not.
func (d *badDisk) afterPowerLoss(t *testing.T, dir string) (left string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left = t.TempDir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if synced, ours := d.synced[path]; ours && synced < int64(len(b)) {
			b = b[:synced+rand.Int64N(int64(len(b))-synced+1)]
		}
		if err := os.WriteFile(filepath.Join(left, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return left
}
