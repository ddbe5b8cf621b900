package mysqlstore

import (
	"fmt"
	"testing"
)

func TestWhatATriggerWrites(t *testing.T) {
	for body, want := range map[string]string{
		"SET NEW.a = 1": "[] []",
		"INSERT INTO log VALUES ('UPDATE users')":                                                 "[`app`.`log`] []",
		"insert ignore into other.log (users) SELECT n FROM users":                                "[`other`.`log`] []",
		"REPLACE log SET a = 1":                                                                   "[`app`.`log`] []",
		"SET NEW.a = REPLACE(NEW.a, 'x', 'y'), NEW.b = INSERT(NEW.b, 1, 1, '')":                   "[] []",
		"BEGIN UPDATE `my ``table` AS m JOIN b ON m.id = b.id SET m.a = 1 WHERE users.x; END":     "[`app`.`my ``table` `app`.`AS` `app`.`m` `app`.`JOIN` `app`.`b` `app`.`ON` `m`.`id` `b`.`id`] []",
		"IF NEW.a THEN DELETE FROM users WHERE id = OLD.id; ELSE CALL p(1); CALL app2.q; END IF":  "[`app`.`users`] [`app`.`p` `app2`.`q`]",
		"DELETE a, b FROM a JOIN b":                                                               "[`app`.`a` `app`.`b` `app`.`a` `app`.`JOIN` `app`.`b`] []",
		"BEGIN -- UPDATE c\n # UPDATE d\n /* UPDATE e */ UPDATE f SET x = \"DELETE FROM g\"; END": "[`app`.`f`] []",
		"/*!50000 UPDATE h SET x = 1 */":                                                          "[`app`.`h`] []",
		"BEGIN SELECT a INTO @a FROM i FOR UPDATE; SET NEW.a = @a; END":                           "[] []",
		"INSERT INTO j VALUES (1) ON DUPLICATE KEY UPDATE a = 'it''s \\' DELETE FROM k'":          "[`app`.`j` `app`.`a`] []",
		"DELETE FROM l": "[`app`.`l`] []",
	} {
		tables, calls := written(body)
		name := func(names []objectName) []string {
			out := []string{}
			for _, n := range names {
				out = append(out, n.in("app"))
			}
			return out
		}
		if got := fmt.Sprint(name(tables), name(calls)); got != want {
			t.Errorf("%s\nwrites %s, want %s", body, got, want)
		}
	}
}
