/** What the attack left on the process: whether it lives, what it holds, what it wrote to its log, and how many series it counts. */
import type { Fault } from './oracle.ts'
import type { World } from './world.ts'

const GROWTH_BYTES_MAX = 64 * 1024 ** 2
const SERIES_MAX = 1500
const LABEL = /="((?:[^"\\]|\\.)*)"/g
const LABEL_FORM = /^[\w.:+-]{0,64}$/
const LINE_CHARS_MAX = 8192
const IDLE_MS = 1500

export interface ProcessMarks {
  readonly growthMiB: number
  readonly lines: number
  readonly series: number
  readonly faults: readonly Fault[]
}

export interface Expectation {
  readonly warmBytes: number
  readonly problemTypes: ReadonlySet<string>
}

export async function judgeProcess(
  world: World,
  { warmBytes, problemTypes }: Expectation,
): Promise<ProcessMarks> {
  const faults: Fault[] = []
  if (!world.api.alive) {
    faults.push({ rule: 'the process lives', detail: world.api.lastWords() })
    return { growthMiB: 0, lines: 0, series: 0, faults }
  }
  await Bun.sleep(IDLE_MS)
  const { publicPort, adminPort } = world.ground
  const ready = await fetch(`http://127.0.0.1:${publicPort}/readyz?verbose`)
  if (ready.status !== 200) faults.push({ rule: 'ready afterwards', detail: await ready.text() })
  const growth = world.residentBytes() - warmBytes
  if (growth > GROWTH_BYTES_MAX) faults.push({ rule: 'bounded memory', detail: `${growth} bytes more` })
  for (const type of problemTypes) {
    const page = await fetch(`http://127.0.0.1:${publicPort}${type}`)
    if (page.status !== 200) faults.push({ rule: 'known problem types', detail: type })
  }
  const metrics = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
  const series = judgeMetrics(metrics, faults)
  const open = /^millrace_http_open_request(?:s|_bytes)\{[^}]*\} (\d+)$/gm
  for (const [line, value] of metrics.matchAll(open)) {
    if (value !== '0') faults.push({ rule: 'places given back', detail: line })
  }
  const lines = judgeLog(world.api.log(), world.secret, faults)
  return { growthMiB: growth / 1024 ** 2, lines, series, faults }
}

function judgeMetrics(text: string, faults: Fault[]): number {
  const samples = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  if (samples.length > SERIES_MAX)
    faults.push({ rule: 'bounded series', detail: `${samples.length} samples` })
  for (const line of samples) {
    for (const [, value = ''] of line.matchAll(LABEL)) {
      if (!LABEL_FORM.test(value)) faults.push({ rule: 'declared labels', detail: line.slice(0, 300) })
    }
  }
  return samples.length
}

/** One line is one object, or one of the first lines for people. */
function judgeLog(log: string, secret: string, faults: Fault[]): number {
  const lines = log.trimEnd().split('\n')
  for (const line of lines) {
    const fault = (rule: string): void => void faults.push({ rule, detail: line.slice(0, 300) })
    if (line.includes(secret)) fault('no secret in the log')
    if (/canary-/.test(line)) fault('no payload in the log')
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is looked for.
    if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(line)) fault('no control characters in the log')
    if (line.length > LINE_CHARS_MAX) fault('bounded log lines')
    if (!line.startsWith('{') && !/^(millrace:|\s*$)/.test(line)) fault('one object a line')
    else if (line.startsWith('{') && !isObject(line)) fault('one object a line')
  }
  return lines.length
}

function isObject(line: string): boolean {
  try {
    return typeof JSON.parse(line) === 'object'
  } catch {
    return false
  }
}
