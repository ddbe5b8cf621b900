package history

import (
	"context"
	"time"

	"github.com/lockstep-cache/lockstep"
)

// Subject is what a workload runs against: one table or several, each behind a
// cache. A function that is nil is not called.
type Subject struct {
	Tables []Table
	// Transact is as lockstep.Transact; in is a table inside the transaction.
	Transact func(ctx context.Context, f func(ctx context.Context, in func(table int) InTx) error) error
}

// Table is one cache, in functions that are as those of lockstep.Cache.
type Table struct {
	Get      func(ctx context.Context, key int) (int64, error)
	GetEntry func(ctx context.Context, key int) (lockstep.Entry[int, int64], error)
	GetMany  func(ctx context.Context, keys []int) (map[int]int64, error)
	Exists   func(ctx context.Context, key int) (bool, error)
	Peek     func(key int) (int64, bool)
	// Scan calls f with each row.
	Scan func(ctx context.Context, f func(lockstep.Entry[int, int64])) error

	Set func(ctx context.Context, key int, value int64) (lockstep.Version, error)
	// SetFor makes a row that lapses. SetIf and DeleteIf have a condition.
	SetFor     func(ctx context.Context, key int, value int64, lifetime time.Duration) (lockstep.Version, error)
	SetIf      func(ctx context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error)
	Delete     func(ctx context.Context, key int) (existed bool, err error)
	DeleteIf   func(ctx context.Context, key int, version lockstep.Version) (existed bool, err error)
	SetMany    func(ctx context.Context, values map[int]int64) error
	DeleteMany func(ctx context.Context, keys []int) error
	DeleteAll  func(ctx context.Context) error
	Update     func(ctx context.Context, key int, f func(old int64, exists bool) (int64, error)) (int64, error)

	Invalidate    func(key int)
	InvalidateAll func()
	Refresh       func(ctx context.Context, key int) error
	Warm          func(ctx context.Context) error
	// Audit returns the differences that it found.
	Audit func(ctx context.Context) ([]string, error)
}

// InTx is a table inside a transaction.
type InTx interface {
	Get(ctx context.Context, key int) (int64, error)
	Set(ctx context.Context, key int, value int64) error
	Delete(ctx context.Context, key int) error
}

// bare is a cache inside a transaction, whose calls have no options.
type bare struct{ lockstep.InTx[int, int64] }

func (b bare) Set(ctx context.Context, key int, value int64) error {
	return b.InTx.Set(ctx, key, value)
}

func (b bare) Delete(ctx context.Context, key int) error { return b.InTx.Delete(ctx, key) }

// Caches is the subject that caches over one database are.
func Caches(caches ...*lockstep.Cache[int, int64]) Subject {
	s := Subject{
		Transact: func(ctx context.Context, f func(context.Context, func(int) InTx) error) error {
			return lockstep.Transact(ctx, func(ctx context.Context, tx *lockstep.Tx) error {
				return f(ctx, func(table int) InTx { return bare{caches[table].In(tx)} })
			})
		},
	}
	for _, c := range caches {
		s.Tables = append(s.Tables, tableOf(c))
	}
	return s
}

func tableOf(c *lockstep.Cache[int, int64]) Table {
	return Table{
		Get: c.Get, GetEntry: c.GetEntry, GetMany: c.GetMany, Exists: c.Exists, Peek: c.Peek,
		Scan: func(ctx context.Context, f func(lockstep.Entry[int, int64])) error {
			for e, err := range c.Scan(ctx) {
				if err != nil {
					return err
				}
				f(e)
			}
			return nil
		},
		Set: func(ctx context.Context, key int, value int64) (lockstep.Version, error) {
			return c.Set(ctx, key, value)
		},
		SetFor: func(ctx context.Context, key int, value int64, lifetime time.Duration) (lockstep.Version, error) {
			return c.Set(ctx, key, value, lockstep.Lifetime(lifetime))
		},
		SetIf: func(ctx context.Context, key int, value int64, expect lockstep.Expect) (lockstep.Version, error) {
			condition := lockstep.IfAbsent()
			if expect.Kind == lockstep.ExpectVersion {
				condition = lockstep.IfVersion(expect.Version)
			}
			return c.Set(ctx, key, value, condition)
		},
		Delete: func(ctx context.Context, key int) (bool, error) { return c.Delete(ctx, key) },
		DeleteIf: func(ctx context.Context, key int, version lockstep.Version) (bool, error) {
			return c.Delete(ctx, key, lockstep.IfVersion(version))
		},
		SetMany: c.SetMany, DeleteMany: c.DeleteMany, DeleteAll: c.DeleteAll,
		Update: func(ctx context.Context, key int, f func(int64, bool) (int64, error)) (int64, error) {
			return c.Update(ctx, key, f)
		},
		Invalidate: c.Invalidate, InvalidateAll: c.InvalidateAll, Refresh: c.Refresh,
		Warm: func(ctx context.Context) error {
			_, err := c.Warm(ctx, lockstep.WarmOptions{})
			return err
		},
		Audit: func(ctx context.Context) (differences []string, err error) {
			report, err := c.Audit(ctx)
			for _, d := range report.Differences {
				differences = append(differences, d.String())
			}
			return differences, err
		},
	}
}
