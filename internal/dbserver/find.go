package dbserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// find returns where a program of a server is, without symbolic links: it looks beside
// itself for others. What is missing is [exec.ErrNotFound], and says which packages of
// Debian have it.
func find(program, packages string, dirs ...string) (string, error) {
	path, err := look(program, packages, dirs...)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// look returns where a program is. PATH goes first, then the directories in which
// distributions hide servers from it.
func look(program, packages string, dirs ...string) (string, error) {
	path, err := exec.LookPath(program)
	for _, dir := range dirs {
		if err == nil {
			break
		}
		found, globErr := filepath.Glob(filepath.Join(dir, program))
		if globErr != nil {
			return "", globErr
		}
		if len(found) > 0 {
			path, err = slices.Max(found), nil
		}
	}
	if errors.Is(err, exec.ErrNotFound) && packages != "" {
		return "", fmt.Errorf("no program %s in PATH or in %s; on Debian and Ubuntu, apt-get install %s: %w",
			program, strings.Join(dirs, ", "), packages, exec.ErrNotFound)
	}
	return path, err
}

// run runs a program to its end, as the servers run: as the same user, and with
// an environment in which nobody's settings are.
func run(ctx context.Context, s *Server, args ...string) error {
	cmd, err := command(ctx, s.dir, args)
	if err != nil {
		return err
	}
	log, err := os.Create(s.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, readErr := os.ReadFile(s.logFile())
		return errors.Join(ctx.Err(), fmt.Errorf("%s: %w\n%s", args[0], err, said), readErr)
	}
	return nil
}

// environment is that of the servers: PGDATA and the like are for others.
func environment(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C"}
}
