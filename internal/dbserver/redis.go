package dbserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Redis is the Redis that is installed. A setting is a line of its configuration file:
// "appendfsync everysec". Its URL is redis://:PASSWORD@HOST:PORT/NUMBER. What a write has
// changed is in the append-only file, and synced, before its reply is sent.
func Redis() Kind { return redis{} }

type redis struct{}

func (redis) Name() string { return "Redis" }

func (e redis) create(_ context.Context, s *Server) error {
	if err := os.Mkdir(e.data(s), 0o700); err != nil {
		return err
	}
	return giveAway(e.data(s))
}

// command writes the configuration: the port is in it, and the password, which everybody
// could read among the arguments.
func (e redis) command(s *Server) ([]string, error) {
	// By that name, of which Debian makes a link: the program does what it is called.
	program, err := look("redis-server", "redis-server", "/usr/sbin", "/usr/local/bin")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(s.dir, "redis.conf")
	lines := append([]string{
		"bind 127.0.0.1",
		"port " + strconv.Itoa(s.port),
		"dir " + e.data(s),
		"requirepass " + s.password,
		"databases 1000",
		"appendonly yes",
		"appendfsync always",
		// No snapshots, and no rewriting of the file, which a process of its own would do.
		`save ""`,
		"auto-aof-rewrite-percentage 0",
	}, s.settings...)
	err = os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
	return []string{program, config}, errors.Join(err, giveAway(config))
}

// ready asks which process it is that answers; a server that is still reading its file
// refuses to say.
func (e redis) ready(ctx context.Context, s *Server, pid int) error {
	return withRedis(ctx, s.URL(), func(c *redisConn) error {
		if _, err := c.do("PING"); err != nil {
			return err
		}
		info, err := c.do("INFO", "server")
		if err == nil && !strings.Contains(info, fmt.Sprintf("process_id:%d\r", pid)) {
			err = errors.New("another Redis answers on its port")
		}
		return err
	})
}

func (redis) data(s *Server) string { return filepath.Join(s.dir, "data") }

func (redis) access(s *Server) Access {
	return Access{Password: s.password, Addr: s.Addr(), Database: "0"}
}

func (redis) url(a Access) string {
	u := url.URL{Scheme: "redis", User: url.UserPassword(a.User, a.Password), Host: a.Addr, Path: a.Database}
	return u.String()
}

// claim is the key, in the database that a server has from the beginning, by which the
// tests of several processes know that a database is taken. It goes by itself where a
// process could not take it away.
func claim(number string) string { return "lockstep_test_" + number }

const claimed = time.Hour

// createDatabase takes the first database that is empty and that no other test has taken.
func (e redis) createDatabase(ctx context.Context, server, name string) (text string, drop func(context.Context) error, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, errRedisURL
	}
	err = withRedis(ctx, server, func(c *redisConn) error {
		for n := 1; ; n++ {
			number := strconv.Itoa(n)
			mine, err := c.do("SET", claim(number), name, "NX", "EX", strconv.Itoa(int(claimed.Seconds())))
			if err != nil {
				return err
			}
			if mine == "" {
				continue
			}
			size, err := e.in(ctx, server, number, "DBSIZE")
			if err == nil && size == "0" {
				u.Path = "/" + number
				drop = func(ctx context.Context) error { return e.drop(ctx, server, number) }
				return nil
			}
			if _, derr := c.do("DEL", claim(number)); err != nil || derr != nil {
				return fmt.Errorf("taking database %d, after those before it: %w", n, errors.Join(err, derr))
			}
		}
	})
	return u.String(), drop, err
}

var clientInDatabase = regexp.MustCompile(`(?m)^id=(\d+) .* db=(\d+) `)

func (e redis) drop(ctx context.Context, server, number string) error {
	return withRedis(ctx, server, func(c *redisConn) error {
		clients, err := c.do("CLIENT", "LIST")
		if err != nil {
			return err
		}
		for _, client := range clientInDatabase.FindAllStringSubmatch(clients, -1) {
			if client[2] == number {
				// One that has gone by itself is none.
				if _, err := c.do("CLIENT", "KILL", "ID", client[1]); err != nil {
					return err
				}
			}
		}
		if _, err := e.in(ctx, server, number, "FLUSHDB"); err != nil {
			return err
		}
		_, err = c.do("DEL", claim(number))
		return err
	})
}

// in sends a command to a database.
func (e redis) in(ctx context.Context, server, number string, command ...string) (reply string, err error) {
	err = withRedis(ctx, server, func(c *redisConn) error {
		if _, err = c.do("SELECT", number); err == nil {
			reply, err = c.do(command...)
		}
		return err
	})
	return reply, err
}

// SIGTERM saves what there is to save, and waits for nobody.
func (redis) orderly() os.Signal { return syscall.SIGTERM }

// It is one process, and the files are of no use to anybody.
func (redis) abrupt() string { return "KILL" }

// redisConn is a connection to a Redis, for the few commands that are sent here.
type redisConn struct {
	net.Conn
	replies *bufio.Reader
}

var errRedisURL = errors.New("the URL of a Redis is redis://:PASSWORD@HOST:PORT/DATABASE")

// withRedis connects to the server of a URL.
func withRedis(ctx context.Context, text string, f func(c *redisConn) error) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "redis" {
		return errRedisURL
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "6379")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	c := &redisConn{conn, bufio.NewReader(conn)}
	if password, ok := u.User.Password(); ok {
		auth := []string{"AUTH", password}
		if u.User.Username() != "" {
			auth = []string{"AUTH", u.User.Username(), password}
		}
		if _, err := c.do(auth...); err != nil {
			return err
		}
	}
	if database := strings.TrimPrefix(u.Path, "/"); database != "" {
		if _, err := c.do("SELECT", database); err != nil {
			return err
		}
	}
	return f(c)
}

// do sends a command and returns its reply: "" for none, and the parts of an array with
// spaces between them.
func (c *redisConn) do(command ...string) (string, error) {
	var request strings.Builder
	fmt.Fprintf(&request, "*%d\r\n", len(command))
	for _, part := range command {
		fmt.Fprintf(&request, "$%d\r\n%s\r\n", len(part), part)
	}
	if _, err := io.WriteString(c, request.String()); err != nil {
		return "", err
	}
	reply, err := c.reply()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command[0], err)
	}
	return reply, nil
}

func (c *redisConn) reply() (string, error) {
	line, err := c.replies.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimSuffix(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New(rest)
	}
	n, err := strconv.Atoi(rest)
	switch {
	case err != nil || kind != '$' && kind != '*':
		return "", fmt.Errorf("the reply begins with %q", line)
	case n < 0:
		return "", nil
	case kind == '$':
		text := make([]byte, n+2)
		_, err := io.ReadFull(c.replies, text)
		return string(text[:n]), err
	}
	parts := make([]string, n)
	for i := range parts {
		if parts[i], err = c.reply(); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, " "), nil
}
