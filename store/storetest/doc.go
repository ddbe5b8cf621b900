// Package storetest is the contract of lockstep.Store as a test suite. A store
// that passes Run may stand behind a cache; one that does not would make the
// cache's promises false.
//
//	func TestContract(t *testing.T) {
//		storetest.Run(t, storetest.Harness{
//			Open: func(t testing.TB) storetest.Store {
//				return openEmpty(t, filepath.Join(t.TempDir(), "app.db"))
//			},
//			Reopen: func(t testing.TB, old storetest.Store) storetest.Store {
//				return reopen(t, old)
//			},
//			Lacks: []storetest.Feature{storetest.Transactions},
//		})
//	}
//
// Nothing is skipped by accident. A harness declares what its store lacks, the
// suite compares the declaration with the store's Capabilities, and where a
// feature is lacking it tests that asking for it is refused with
// lockstep.ErrUnsupported and changes nothing. Each of the twelve laws in the
// documentation of lockstep.Store has a subtest that carries its number; the
// others are named for what they show.
//
// The suite also compares the store with a model: a few dozen lines that keep
// rows in a map and are obviously right, driven beside the store by random
// operations. When they differ, the failure is reduced and printed with the
// command that replays it.
//
// For tests of what stands above a store, Inject puts faults into one: see
// package fault, which holds it, so that programs that inject faults outside
// tests do not carry this suite with them.
package storetest
