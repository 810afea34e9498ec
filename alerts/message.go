package alerts

import (
	"fmt"
	"hash/fnv"
	"time"
)

// message is what Alertmanager posts to a webhook.
type message struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []alert           `json:"alerts"`
}

type alert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"` // the zero time: it goes on
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// message returns the message with events, of which dropped ones are missing.
func (s *sender) message(events []event, dropped int) message {
	m := message{
		Version: "4", GroupKey: fmt.Sprintf("{}:{instance=%q}", s.instance), TruncatedAlerts: dropped, Status: "resolved", Receiver: s.hook.Name,
		GroupLabels:  map[string]string{"instance": s.instance},
		CommonLabels: map[string]string{"instance": s.instance, "job": "odx"}, CommonAnnotations: map[string]string{},
	}
	for _, e := range events {
		a := alert{
			Status: "firing", StartsAt: e.began.UTC(), EndsAt: e.ended.UTC(),
			Labels:      map[string]string{"alertname": e.name, "severity": string(e.severity), "instance": s.instance, "job": "odx"},
			Annotations: map[string]string{"summary": e.summary},
			Fingerprint: fingerprint(s.instance, e.name),
		}
		if e.ended.IsZero() {
			m.Status = "firing"
		} else {
			a.Status = "resolved"
		}
		m.Alerts = append(m.Alerts, a)
	}
	return m
}

// fingerprint is the same for all posts about one alert.
func fingerprint(instance, name string) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s", instance, name)
	return fmt.Sprintf("%016x", h.Sum64())
}
