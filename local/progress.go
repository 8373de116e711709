package local

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	redraw = 200 * time.Millisecond
	// repeat is how long a plain terminal may be silent.
	repeat = 8 * time.Second
	// lineWidth bounds a live line, so that it is one line on an ordinary terminal.
	lineWidth = 110
)

// Progress tells a person what goes on: on a live terminal one line that is drawn again
// with the time it has taken, elsewhere plain lines, repeated while nothing else happens.
type Progress struct {
	out  io.Writer
	live bool

	mu      sync.Mutex
	doing   string
	since   time.Time
	written time.Time
	drawn   bool
	quit    chan struct{}
	done    chan struct{}
}

// NewProgress starts telling; Close ends it.
func NewProgress(out io.Writer, live bool) *Progress {
	p := &Progress{out: out, live: live, quit: make(chan struct{}), done: make(chan struct{})}
	go p.beat()
	return p
}

// Close removes the live line.
func (p *Progress) Close() {
	close(p.quit)
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.doing = ""
}

// Doing says what goes on from now on; the same words again change nothing.
func (p *Progress) Doing(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := oneLine(fmt.Sprintf(format, args...))
	if text == p.doing {
		return
	}
	p.doing, p.since = text, time.Now()
	p.draw()
}

// Done says that something is finished, or a fact that stays true.
func (p *Progress) Done(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	fmt.Fprintln(p.out, fmt.Sprintf(format, args...))
	p.doing, p.written = "", time.Now()
}

func (p *Progress) beat() {
	defer close(p.done)
	ticker := time.NewTicker(redraw)
	defer ticker.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-ticker.C:
			p.again()
		}
	}
}

func (p *Progress) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doing != "" && (p.live || time.Since(p.written) >= repeat) {
		p.draw()
	}
}

// draw needs the lock.
func (p *Progress) draw() {
	line := p.doing
	if took := time.Since(p.since).Truncate(time.Second); took > 0 {
		line = fmt.Sprintf("%s (%s)", line, took)
	}
	p.written = time.Now()
	if !p.live {
		fmt.Fprintln(p.out, line)
		return
	}
	fmt.Fprint(p.out, "\r\x1b[K", line)
	p.drawn = true
}

// erase needs the lock.
func (p *Progress) erase() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > lineWidth {
		return string(runes[:lineWidth-1]) + "…"
	}
	return text
}
