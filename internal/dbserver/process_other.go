//go:build !unix

package dbserver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"time"
)

var errNoServers = errors.New("database servers are started on Unix only")

// process is what a Unix would have.
type process struct{ pid int }

func startProcess(dir, logFile, signal string, args []string) (*process, error) {
	return nil, errNoServers
}

func (p *process) endedWithin(time.Duration) bool { return true }
func (p *process) wait() error                    { return errNoServers }
func (p *process) release() error                 { return errNoServers }
func (p *process) signal(os.Signal) error         { return errNoServers }
func (p *process) kill() error                    { return errNoServers }
func (p *process) suspend(int) error              { return errNoServers }
func (p *process) resume(int) error               { return errNoServers }

func childrenOf(int) ([]int, error) { return nil, errNoServers }

func command(_ context.Context, dir string, args []string) (*exec.Cmd, error) {
	return nil, errNoServers
}

func giveAway(dir string) error { return errNoServers }
