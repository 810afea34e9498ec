package alerts

import (
	"context"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
)

// Webhook is where to post alerts.
type Webhook struct {
	// Name is in the log, and is the receiver in what is posted.
	Name string
	URL  string
	// Token is a bearer token (RFC 6750), "" for none.
	Token string
}

// Options configure a Notifier.
type Options struct {
	// Status returns the status; it does not wait for the disk.
	Status func() (admin.Status, error)
	// Instance names the server in alerts.
	Instance string
	Webhooks []Webhook
	Log      *logrus.Entry
	// Every is the time between looks at the status; 0: 10 s.
	Every time.Duration
	// Client posts; nil: one with timeouts.
	Client *http.Client
}

// Notifier watches a server, and posts alerts.
type Notifier struct {
	o Options

	mu       sync.Mutex // guards webhooks
	webhooks []Webhook
	changed  chan struct{} // has an element when webhooks has changed
}

// postLimit bounds one post.
const postLimit = 10 * time.Second

// NewNotifier returns a notifier, which works while Run runs.
func NewNotifier(o Options) *Notifier {
	if o.Every == 0 {
		o.Every = 10 * time.Second
	}
	if o.Client == nil {
		o.Client = &http.Client{Timeout: postLimit, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 1, MaxConnsPerHost: 2, IdleConnTimeout: time.Minute,
		}}
	}
	client := *o.Client
	// A redirected POST becomes a GET without a body, whose answer says nothing about the
	// alert, or takes the bearer token to where the configuration does not name.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &client
	return &Notifier{o: o, webhooks: o.Webhooks, changed: make(chan struct{}, 1)}
}

// SetWebhooks replaces the webhooks. One that is new gets the alerts that go on.
func (n *Notifier) SetWebhooks(list []Webhook) {
	n.mu.Lock()
	n.webhooks = list
	n.mu.Unlock()
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends, and waits for what it has started. Events that are not posted
// by then are lost: they are repeated by the next process if they go on.
func (n *Notifier) Run(ctx context.Context) {
	r := running{n: n, ctx: ctx, senders: map[Webhook]*sender{}}
	defer r.stop()
	tick := time.NewTicker(n.o.Every)
	defer tick.Stop()
	for {
		r.adjust()
		r.look()
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
		case <-tick.C:
		}
	}
}

// running is the state of Run.
type running struct {
	n       *Notifier
	ctx     context.Context
	watch   watch
	senders map[Webhook]*sender
	ending  sync.WaitGroup
}

// adjust starts and ends senders as the webhooks say.
func (r *running) adjust() {
	r.n.mu.Lock()
	wanted := map[Webhook]bool{}
	for _, h := range r.n.webhooks {
		wanted[h] = true
	}
	r.n.mu.Unlock()
	for h, s := range r.senders {
		if !wanted[h] {
			s.cancel()
			delete(r.senders, h)
		}
	}
	for h := range wanted {
		if r.senders[h] != nil {
			continue
		}
		s := newSender(r.n, h)
		s.add(r.watch.current())
		ctx, cancel := context.WithCancel(r.ctx)
		s.cancel = cancel
		r.senders[h] = s
		r.ending.Go(func() { s.run(ctx) })
	}
}

// look looks at the status once.
func (r *running) look() {
	status, err := r.n.o.Status()
	if err != nil {
		return // the server stops
	}
	events := r.watch.observe(time.Now(), &status)
	for s := range maps.Values(r.senders) {
		s.add(events)
	}
}

func (r *running) stop() {
	for _, s := range r.senders {
		s.cancel()
	}
	r.ending.Wait()
	r.n.o.Client.CloseIdleConnections()
}
