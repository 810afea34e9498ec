package metrics

import (
	"odx/admin"
	"odx/monitor"
)

// peerFamilies are about other servers.
func peerFamilies() []Family {
	perPeer := func(kind Type, name, help string, value func(*admin.Peer) float64) Family {
		return Family{Name: name, Help: help, Type: kind, Labels: []string{"peer"}, values: func(s *monitor.Sample, emit func(float64, ...string)) {
			for i := range s.Figures.Server.Peers {
				p := &s.Figures.Server.Peers[i]
				emit(value(p), p.Name)
			}
		}}
	}
	return []Family{
		perPeer(Gauge, "odx_peer_up", "Whether the peer has answered the last request; 0 before the first one.", func(p *admin.Peer) float64 {
			if p.Up {
				return 1
			}
			return 0
		}),
		perPeer(Counter, "odx_peer_requests_total", "Requests to the peer.", func(p *admin.Peer) float64 { return float64(p.Requests) }),
		perPeer(Counter, "odx_peer_failures_total", "Requests that the peer did not answer, or not as the server that it should be.", func(p *admin.Peer) float64 { return float64(p.Failures) }),
		perPeer(Counter, "odx_peer_fetched_bytes_total", "Bytes of data that came from the peer.", func(p *admin.Peer) float64 { return float64(p.FetchedBytes) }),
		perPeer(Counter, "odx_peer_mapped_bytes_total", "Bytes of data of the peer that were here already.", func(p *admin.Peer) float64 { return float64(p.MappedBytes) }),
		perPeer(Counter, "odx_peer_received_bytes_total", "All bytes that were received from the peer.", func(p *admin.Peer) float64 { return float64(p.WireBytes) }),
		one(Gauge, "odx_peer_holds", "Holds that peers have of this server.", func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Holds.Now) }),
		one(Counter, "odx_peer_holds_total", "Holds that peers were given.", func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Holds.Given) }),
		one(Counter, "odx_peer_holds_expired_total", "Holds that ended because their peer was gone.", func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Holds.Expired) }),
		one(Counter, "odx_peer_sent_bytes_total", "Bytes of data that peers have read of this server.", func(s *monitor.Sample) float64 { return float64(s.Figures.Server.Holds.ReadBytes) }),
	}
}
