package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestDeployedSettingsExist: what deploy/ sets is taken, what it has as a comment included,
// and its variables are those of flags.
func TestDeployedSettingsExist(t *testing.T) {
	deploy := filepath.Join("..", "..", "deploy")
	conf, err := os.ReadFile(filepath.Join(deploy, "lockstep.conf"))
	if err != nil {
		t.Fatal(err)
	}
	v := parsed(t, "--config", filepath.Join(deploy, "lockstep.conf"))
	if err := v.check(); err != nil {
		t.Error(err)
	}
	if v.HTTP != "127.0.0.1:9121" || len(v.Redis) != 1 {
		t.Errorf("%+v", v)
	}
	all := regexp.MustCompile(`(?m)^# ([a-z-]+ = )`).ReplaceAllString(string(conf), "$1")
	all = strings.Replace(all, "store = sqlite:lockstep.db\n", "", 1) // there is another one
	if v := parsed(t, "--config", written(t, all)); v.Users == "" || v.TLSCA == "" || !strings.HasPrefix(string(v.Store), "postgres:") {
		t.Errorf("%+v", v)
	}

	known := map[string]bool{passwordVariable: true}
	for _, node := range parser(t.Context(), new(verbs), new(strings.Builder), new(strings.Builder), nil).Model.Leaves(false) {
		if node.Name == "serve" {
			_ = kong.Visit(node, func(n kong.Visitable, next kong.Next) error {
				if flag, ok := n.(*kong.Flag); ok {
					known[variable(flag.Name)] = true
				}
				return next(nil)
			})
		}
	}
	for _, name := range []string{"Dockerfile", "compose.yaml", "lockstep.service", "README.md"} {
		text, err := os.ReadFile(filepath.Join(deploy, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`LOCKSTEP_[A-Z_]+`).FindAllString(string(text), -1) {
			if !known[found] {
				t.Errorf("%s: there is no %s", name, found)
			}
		}
	}
}
