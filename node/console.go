package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// maxConsole bounds each of the two files of what the virtual machine prints.
const maxConsole = 1 << 20

// console is a file that starts anew when it is full, keeping the one before it.
type console struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

func openConsole(path string) (*console, error) {
	c := &console{path: path}
	if err := c.open(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *console) open() error {
	file, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open %s: %w", c.path, err)
	}
	info, err := file.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", c.path, err), file.Close())
	}
	c.file, c.size = file, info.Size()
	return nil
}

// Write never fails: a full disk must not end Kafka by way of its standard output.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+int64(len(p)) > maxConsole {
		c.rotate()
	}
	if c.file != nil {
		n, err := c.file.Write(p)
		if err == nil {
			c.size += int64(n)
		}
	}
	return len(p), nil
}

func (c *console) rotate() {
	if c.file != nil {
		_ = c.file.Close() // what could not be written is lost either way
		c.file = nil
	}
	if err := os.Rename(c.path, c.path+".1"); err != nil {
		_ = os.Remove(c.path) // bounded above all
	}
	_ = c.open() // without a file the output is dropped
}

func (c *console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// tee is a console that is also shown. Who does not look must not end Kafka either.
type tee struct {
	console *console
	shown   io.Writer
}

func (t tee) Write(p []byte) (int, error) {
	_, _ = t.shown.Write(p)
	return t.console.Write(p)
}

// lockedBuffer keeps the beginning of what a tool prints.
type lockedBuffer struct {
	mu   sync.Mutex
	text []byte
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	const most = 64 << 10
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = append(b.text, p[:min(len(p), most-len(b.text))]...)
	return len(p), nil
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.text)
}
