/**
 * The rules of Prometheus for names, help and units, on the text of `/metrics`: those of `promtool check metrics`, and for
 * OpenMetrics those of its specification that a parser would refuse. promtool itself reads the older format only.
 */

interface Family {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly samples: { readonly name: string; readonly labels: string }[]
}

/** What a family's samples may be called, by its type. */
const SUFFIXES: Readonly<Record<string, readonly string[]>> = {
  gauge: [''],
  counter: ['_total'],
  histogram: ['_bucket', '_sum', '_count'],
}
const NOT_BASE_UNITS =
  /(^|_)(ms|milliseconds|us|microseconds|ns|nanoseconds|minutes|hours|days|kb|kilobytes|mb|megabytes|bits|percent)(_|$)/
const SAMPLE = /^([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})? (\S+)( # \{.*\} \S+)?$/
const LABELS = /^(?:[a-z_][a-z0-9_]*="(?:[^"\\]|\\[\\"n])*",?)*$/

/** What is wrong with a text of either format; empty when nothing is. */
export function metricMistakes(text: string, isOpen: boolean): string[] {
  const families: Family[] = []
  const mistakes: string[] = []
  const lines = text.split('\n')
  if (lines.at(-1) !== '') mistakes.push('the last line has no end')
  if (isOpen !== (lines.at(-2) === '# EOF')) mistakes.push('# EOF ends OpenMetrics, and only that')
  for (const line of lines.slice(0, isOpen ? -2 : -1)) {
    const [, kind = '', name = '', rest = ''] = /^# (\w+) (\w+) (.*)$/.exec(line) ?? []
    const last = families.at(-1)
    if (kind === 'HELP') families.push({ name, help: rest, type: '', samples: [] })
    else if (kind === 'TYPE') {
      if (last?.name !== name || last.samples.length > 0)
        mistakes.push(`${name}: TYPE stands apart from HELP`)
      families.splice(-1, 1, { name, type: rest, help: last?.help ?? '', samples: [] })
    } else if (line !== '' || isOpen) {
      const [, sample = '', labels = '', value = ''] = SAMPLE.exec(line) ?? []
      const isRead =
        sample !== '' && LABELS.test(labels) && !Number.isNaN(Number(value.replace('Inf', 'inity')))
      if (!isRead) mistakes.push(`can't be read: ${line}`)
      else if (last === undefined) mistakes.push(`${sample}: no help text`)
      else last.samples.push({ name: sample, labels })
    }
  }
  if (families.length === 0) mistakes.push('there is no metric')
  const names = families.map(({ name }) => name)
  for (const name of new Set(names.filter((each, index) => names.indexOf(each) !== index)))
    mistakes.push(`${name}: told twice`)
  return [...mistakes, ...families.flatMap((family) => familyMistakes(family, isOpen))]
}

function familyMistakes({ name, type, help, samples }: Family, isOpen: boolean): string[] {
  const told = (isWrong: boolean, what: string): string[] => (isWrong ? [`${name}: ${what}`] : [])
  const suffixes = SUFFIXES[type] ?? []
  // OpenMetrics names a counter without the `_total` of its samples.
  const stem = type === 'counter' && !isOpen ? name.replace(/_total$/, '') : name
  const expected = suffixes.map((suffix) => stem + suffix)
  const series = samples.map((sample) => sample.name + sample.labels)
  return [
    ...told(help.trim() === '', 'no help text'),
    ...told(suffixes.length === 0, `type ${type}`),
    ...told(type === 'counter' && !isOpen && !name.endsWith('_total'), 'a counter ends in _total'),
    ...told(
      /_(total|count|sum|bucket|info)$/.test(stem) && !stem.endsWith('build_info'),
      'ends as another type',
    ),
    ...told(/(^|_)(counter|gauge|histogram|summary)(_|$)/.test(name), 'has its type in its name'),
    ...told(/[A-Z:]/.test(name), 'is not written in small letters'),
    ...told(NOT_BASE_UNITS.test(name), 'is not in base units'),
    ...told(
      samples.some((sample) => !expected.includes(sample.name)),
      'has samples of other names',
    ),
    ...told(
      type !== 'histogram' && samples.some(({ labels }) => /(^|,)(le|quantile)="/.test(labels)),
      'has a label of histograms or summaries',
    ),
    ...told(new Set(series).size !== series.length, 'has a series twice'),
  ]
}

/**
 * Samples for promtool, which sees only families that have some: one for each counter and gauge that has none yet.
 */
export function withEverySample(text: string): string {
  const lines = text.split('\n')
  return lines
    .flatMap((line, index) => {
      const [, name, type] = /^# TYPE (\w+) (counter|gauge)$/.exec(line) ?? []
      const isEmpty = type !== undefined && !(lines[index + 1] ?? '').startsWith(`${name}`)
      return isEmpty ? [line, `${name} 0`] : [line]
    })
    .join('\n')
}

/** The same metrics as the older format has them: counters by the name of their samples, and no end mark. */
export function asOldText(openMetrics: string): string {
  const counters = new Set([...openMetrics.matchAll(/^# TYPE (\w+) counter$/gm)].map(([, name]) => name))
  return openMetrics
    .replace(/^# (HELP|TYPE) (\w+) /gm, (line, kind, name) =>
      counters.has(name) ? `# ${kind} ${name}_total ` : line,
    )
    .replace(/# EOF\n$/, '')
}
