package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"odx/admin"
	"odx/api"
	"odx/conf"
)

// completeLimit is how long a shell waits for what the server has.
const completeLimit = 2 * time.Second

// candidates returns what an argument can be, each with an optional description after a
// tab. before are the arguments in front of it.
type candidates func(ctx context.Context, a admin.Administrator, before []string) ([]string, error)

// argument is how a shell completes an argument: none of the sources for a name that is
// new, or a file of this machine.
type argument struct {
	from []candidates
	// local also offers files of this machine.
	local bool
	// repeated is for the last argument, which can be given several times.
	repeated bool
}

// completions returns, for the commands with arguments that the server knows, what they
// are. Commands that are not here take files of this machine, or none.
func completions() map[string][]argument {
	volume, file, disk := argument{from: []candidates{volumes}}, argument{from: []candidates{files}}, argument{from: []candidates{disks}}
	object := argument{from: []candidates{volumes, fileArguments}}
	end := argument{from: []candidates{volumes, fileArguments, lunURLs}, local: true}
	token := argument{from: []candidates{tokenIDs}}
	target, lun := argument{from: []candidates{targets}}, argument{from: []candidates{lunsOfTarget}}
	policy := argument{from: []candidates{policyNames}}
	local, name := argument{local: true}, argument{}
	pair := argument{from: []candidates{replicas}}
	return map[string][]argument{
		"odx volume resize":   {volume, name},
		"odx cluster drain":   {name}, // of a pool, which takes too long to reach
		"odx cluster undrain": {name},
		"odx cluster move":    {name, name},
		"odx volume snapshot": {volume, name},
		"odx volume clone":    {volume, name},
		"odx volume delete":   {volume},
		"odx volume rename":   {volume, name},
		"odx volume revert":   {volume},
		"odx volume diff":     {volume, volume},
		"odx snapshot list":   {object},
		"odx snapshot run":    {policy},
		"odx snapshot prune":  {policy},
		"odx snapshot pause":  {policy},
		"odx snapshot resume": {policy},
		"odx file list":       {file},
		"odx file put":        {local, file},
		"odx file get":        {file, local},
		"odx file cp":         {file, file},
		"odx file mv":         {file, file},
		"odx file token":      {file},
		"odx file rm":         {argument{from: file.from, repeated: true}},
		"odx copy":            {end, end},
		"odx send":            {object},
		"odx receive":         {volume},
		"odx store backup":    {local},
		"odx store restore":   {local},
		"odx doctor":          {argument{from: []candidates{lunURLs}}, argument{from: []candidates{lunURLs}}},
		"odx vhd info":        {disk},
		"odx vhd check":       {disk},
		"odx vhd import":      {local, file},
		"odx vhd export":      {disk, local},
		"odx vhd snapshot":    {disk, name},
		"odx vhd merge":       {disk},
		"odx vhd compact":     {disk},
		"odx vhd defrag":      {disk},
		"odx vhd resize":      {disk, name},
		"odx vhd convert":     {disk, file},
		"odx vhd to-volume":   {disk, volume},
		"odx vhd from-volume": {volume, file},
		"odx token create":    {object},
		"odx token write":     {name, object},
		"odx token verify":    {name, object},
		"odx token show":      {token},
		"odx token delete":    {token},
		"odx target delete":   {target},
		"odx lun list":        {target},
		"odx lun add":         {target, argument{from: []candidates{volumes}}},
		"odx lun remove":      {target, lun},
		"odx user list":       {target},
		"odx user add":        {target, name},
		"odx user set":        {target, name},
		"odx user remove":     {target, name},
		"odx access list":     {target},
		"odx access add":      {target},
		"odx access remove":   {target, name},
		"odx session end":     {argument{from: []candidates{sessions}}},

		"odx volume migrate start":  {volume, name},
		"odx volume migrate abort":  {volume},
		"odx volume migrate finish": {volume},

		"odx replicate start":    {argument{from: []candidates{peerNames}}, name, name},
		"odx replicate run":      {pair},
		"odx replicate status":   {pair},
		"odx replicate pause":    {pair},
		"odx replicate resume":   {pair},
		"odx replicate failover": {pair},
		"odx replicate failback": {pair},
		"odx replicate forget":   {pair},
	}
}

// addCompletion makes shells ask the server of the store for arguments.
func addCompletion(cmd *cobra.Command, all map[string][]argument) {
	if arguments, ok := all[cmd.CommandPath()]; ok {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, before []string, typed string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, arguments, before, typed)
		}
	}
	for _, sub := range cmd.Commands() {
		addCompletion(sub, all)
	}
}

// complete returns the candidates for the argument after before that begin with typed. A
// server that does not answer has none.
func complete(cmd *cobra.Command, arguments []argument, before []string, typed string) ([]string, cobra.ShellCompDirective) {
	i := len(before)
	if last := len(arguments) - 1; i > last && arguments[last].repeated {
		i = last
	}
	if i >= len(arguments) {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	directive := cobra.ShellCompDirectiveNoFileComp
	if arguments[i].local {
		directive = cobra.ShellCompDirectiveDefault
	}
	if len(arguments[i].from) == 0 {
		return nil, directive
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeLimit)
	defer cancel()
	client, err := completionClient(cmd)
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil, directive
	}
	defer client.Close()
	var found []string
	for _, get := range arguments[i].from {
		some, err := get(ctx, client, before)
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
			continue
		}
		found = append(found, some...)
	}
	found = slices.DeleteFunc(found, func(s string) bool {
		name, _, _ := strings.Cut(s, "\t")
		return !strings.HasPrefix(name, typed) || arguments[i].repeated && slices.Contains(before, name)
	})
	return found, directive
}

// completionClient returns the server that the flags of a command line name so far. It
// does not open a store that has no server: that takes time, and a lock.
func completionClient(cmd *cobra.Command) (*api.Client, error) {
	text := func(flag string) string {
		if f := cmd.Flag(flag); f != nil {
			return f.Value.String()
		}
		return ""
	}
	if url := text("api"); url != "" {
		secret, _, err := conf.ReadSecretFile(text("api-secret"))
		if err != nil {
			return nil, err
		}
		return api.NewRemoteClient(url, secret)
	}
	cfg, err := loadConfig(serveOptions{config: text("config")})
	if err != nil {
		return nil, err
	}
	return api.NewClient(cfg.LocalDir()), nil
}

func volumes(ctx context.Context, a admin.Administrator, _ []string) (names []string, err error) {
	all, err := a.Volumes(ctx)
	for i := range all {
		names = append(names, all[i].Name+"\t"+conf.FormatSize(all[i].SizeBytes))
	}
	return names, err
}

func files(ctx context.Context, a admin.Administrator, _ []string) (names []string, err error) {
	all, err := a.Files(ctx)
	for i := range all {
		names = append(names, all[i].Name)
	}
	return names, err
}

// disks returns the files that are virtual disks by their names.
func disks(ctx context.Context, a admin.Administrator, before []string) ([]string, error) {
	all, err := files(ctx, a, before)
	return slices.DeleteFunc(all, func(name string) bool {
		name = strings.ToLower(name)
		return !strings.HasSuffix(name, ".vhd") && !strings.HasSuffix(name, ".vhdx") && !strings.HasSuffix(name, ".avhd") && !strings.HasSuffix(name, ".avhdx")
	}), err
}

// fileArguments returns files as arguments that can also be volumes.
func fileArguments(ctx context.Context, a admin.Administrator, before []string) ([]string, error) {
	all, err := files(ctx, a, before)
	for i := range all {
		all[i] = "file:" + all[i]
	}
	return all, err
}

func tokenIDs(ctx context.Context, a admin.Administrator, _ []string) (ids []string, err error) {
	all, err := a.Tokens(ctx)
	for i := range all {
		ids = append(ids, all[i].ID.String())
	}
	return ids, err
}

func targets(ctx context.Context, a admin.Administrator, _ []string) (names []string, err error) {
	st, err := a.Status(ctx)
	for i := range st.LUNs {
		if name := st.LUNs[i].Target; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, err
}

// peerNames returns the peers of the server's configuration, without asking them.
func peerNames(ctx context.Context, a admin.Administrator, _ []string) (names []string, err error) {
	c, ok := a.(*api.Client)
	if !ok {
		return nil, admin.ErrNotRunning
	}
	text, err := c.Config(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := conf.ParseEffective("configuration of the server", text)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Peers {
		names = append(names, cfg.Peers[i].Name)
	}
	return names, nil
}

// lunsOfTarget returns the numbers of the LUNs of the target that is the argument before.
func lunsOfTarget(ctx context.Context, a admin.Administrator, before []string) (numbers []string, err error) {
	st, err := a.Status(ctx)
	for i := range st.LUNs {
		if l := &st.LUNs[i]; len(before) > 0 && l.Target == before[0] {
			numbers = append(numbers, fmt.Sprintf("%d\t%s", l.Number, l.Medium))
		}
	}
	return numbers, err
}

// lunURLs returns the LUNs of the server as an initiator names them, at its first portal.
func lunURLs(ctx context.Context, a admin.Administrator, _ []string) (urls []string, err error) {
	st, err := a.Status(ctx)
	if err != nil || len(st.Portals) == 0 {
		return nil, err
	}
	portal, _, _ := strings.Cut(fmt.Sprint(st.Portals[0]), ",")
	for i := range st.LUNs {
		l := &st.LUNs[i]
		urls = append(urls, fmt.Sprintf("iscsi://%s/%s/%d\t%s", portal, l.Target, l.Number, l.Medium))
	}
	return urls, nil
}

// sessions returns the numbers of the sessions, with their initiators.
func sessions(ctx context.Context, a admin.Administrator, _ []string) (numbers []string, err error) {
	st, err := a.Status(ctx)
	for i := range st.Sessions {
		numbers = append(numbers, fmt.Sprintf("%d\t%s", st.Sessions[i].TSIH, st.Sessions[i].Initiator))
	}
	return numbers, err
}
