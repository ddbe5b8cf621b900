package main

import (
	"context"
	"fmt"
)

// Statement is what the books say at one moment.
type Statement struct {
	Accounts int64
	Total    Cents // of all balances
	Entries  int64 // of the trail

	PaidIn   Cents // by those who opened accounts
	Entered  Cents // all entries together
	Apart    int64 // accounts whose entries do not add up to their balance
	Repeated int64 // transfers that were entered more than once
}

// One statement, and so one snapshot, in the middle of whatever is going on. It asks the
// tables and not the caches: who checks should know nothing of what is checked, and a
// report over all rows is what a database is good at.
const statement = `
SELECT (SELECT count(*) FROM bank_accounts),
       (SELECT CAST(coalesce(sum(balance), 0) AS bigint) FROM bank_accounts),
       (SELECT count(*) FROM bank_trail),
       (SELECT CAST(coalesce(sum(amount), 0) AS bigint) FROM bank_trail WHERE transfer LIKE 'opening of %'),
       (SELECT CAST(coalesce(sum(amount), 0) AS bigint) FROM bank_trail),
       (SELECT count(*) FROM bank_accounts AS a
         WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM bank_trail WHERE account = a.id)),
       (SELECT count(*) FROM (SELECT 1 FROM bank_trail GROUP BY transfer, account HAVING count(*) > 1) AS twice)`

// Statement reads the books.
func (b *Books) Statement(ctx context.Context) (s Statement, err error) {
	err = b.sql.QueryRowContext(ctx, statement).
		Scan(&s.Accounts, &s.Total, &s.Entries, &s.PaidIn, &s.Entered, &s.Apart, &s.Repeated)
	return s, err
}

// Faults says what is wrong with the books.
func (s Statement) Faults() (faults []string) {
	if s.Total != s.PaidIn {
		faults = append(faults, fmt.Sprintf("there is %v in the accounts, and %v was paid in", s.Total, s.PaidIn))
	}
	if s.Apart > 0 || s.Entered != s.Total {
		faults = append(faults, fmt.Sprintf("the trail adds up to %v, and is not the balance of %d accounts", s.Entered, s.Apart))
	}
	if s.Repeated > 0 {
		faults = append(faults, fmt.Sprintf("%d transfers were entered twice", s.Repeated))
	}
	return faults
}
