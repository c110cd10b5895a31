/**
 * Requests that no client library sends: smuggling, broken framing, broken heads, floods, pipelines. In each, `SMUGGLED` would be
 * a command of its own if something behind the end of a request were read as another.
 */
import type { Random } from '../faults/random.ts'
import { pick } from './bodies.ts'

export interface RawParts {
  /** A complete valid request for one command, without head lines that frame it. */
  readonly head: string
  readonly body: string
  /** A complete request that must never be run. */
  readonly smuggled: string
}

type RawCase = (parts: RawParts, random: Random) => string

const framed =
  (lines: string, body: (parts: RawParts) => string): RawCase =>
  (parts) =>
    `${parts.head}${lines}\r\n\r\n${body(parts)}`
const chunk = (text: string): string => `${Buffer.byteLength(text, 'latin1').toString(16)}\r\n${text}\r\n`
const length = ({ body }: RawParts): string => `Content-Length: ${body.length}`

const CODINGS = [
  'xchunked',
  'chunked, identity',
  'identity',
  'gzip, chunked',
  '"chunked"',
  'chunked;q=1',
  '\u000bchunked',
  'chunked\u0000',
  ' \tchunked , chunked',
  'CHUNKED, x',
]
const LENGTHS = ['+0', '-1', '0x0', '0, 0', '', '99999999999999999999', '0;a', '1e1', '0 0', '\u00b20']

/** By what must come of the smuggled request: nothing. */
export const RAW_CASES: Readonly<Record<string, RawCase>> = {
  'both lengths': framed(
    'Content-Length: 5\r\nTransfer-Encoding: chunked',
    ({ smuggled }) => `0\r\n\r\n${smuggled}`,
  ),
  'lengths the other way': framed(
    'Transfer-Encoding: chunked\r\nContent-Length: 3',
    ({ smuggled }) => chunk(smuggled) + '0\r\n\r\n',
  ),
  'transfer coding': (parts, random) =>
    `${parts.head}Transfer-Encoding: ${pick(random, CODINGS)}\r\nContent-Length: 0\r\n\r\n${parts.smuggled}`,
  'transfer coding alone': (parts, random) =>
    `${parts.head}Transfer-Encoding: ${pick(random, CODINGS)}\r\n\r\n0\r\n\r\n${parts.smuggled}`,
  'two codings': framed(
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity',
    ({ smuggled }) => `0\r\n\r\n${smuggled}`,
  ),
  'space before colon': framed('Transfer-Encoding : chunked', ({ smuggled }) => `0\r\n\r\n${smuggled}`),
  'folded header': framed('Transfer-Encoding:\r\n chunked', ({ smuggled }) => `0\r\n\r\n${smuggled}`),
  'two lengths': (parts) =>
    `${parts.head}Content-Length: 0\r\nContent-Length: ${parts.smuggled.length}\r\n\r\n${parts.smuggled}`,
  'odd length': (parts, random) =>
    `${parts.head}Content-Length: ${pick(random, LENGTHS)}\r\n\r\n${parts.smuggled}`,
  'bare line feeds': (parts) => `${parts.head}${length(parts)}\r\n\r\n${parts.body}`.replaceAll('\r\n', '\n'),
  'a bare line feed': framed('X-A: b\nTransfer-Encoding: chunked', ({ smuggled }) => `0\r\n\r\n${smuggled}`),
  'a bare return': framed('X-A: b\rTransfer-Encoding: chunked', ({ smuggled }) => `0\r\n\r\n${smuggled}`),
  'chunk size': (parts, random) =>
    `${parts.head}Transfer-Encoding: chunked\r\n\r\n${pick(random, ['zz', '-3', 'FFFFFFFFFFFFFFFFF', '0x0', '', ' 0', '0_0', '0x'])}\r\n\r\n${parts.smuggled}`,
  'chunk ends wrong': framed(
    'Transfer-Encoding: chunked',
    ({ body, smuggled }) => `${body.length.toString(16)}\r\n${body}XX0\r\n\r\n${smuggled}`,
  ),
  'head floods': (parts, random) =>
    `${parts.head}${'X-Flood: y\r\n'.repeat(random.whole(150, 3000))}${length(parts)}\r\n\r\n${parts.body}`,
  'a long head': (parts, random) =>
    `${parts.head}X-Long: ${'y'.repeat(random.whole(14_000, 100_000))}\r\n${length(parts)}\r\n\r\n${parts.body}`,
  'bad header names': (parts, random) =>
    `${parts.head}${pick(random, ['X(y): a', 'no colon', ': empty', 'X\u0000: a', 'X: a\u0001', '\u00e9: a'])}\r\n${length(parts)}\r\n\r\n${parts.body}`,
  versions: (parts, random) =>
    parts.head.replace(
      'HTTP/1.1',
      pick(random, ['HTTP/1.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTP/2.0', 'http/1.1', 'HTTP/11', 'HTTP/1.1 ']),
    ) + `${length(parts)}\r\n\r\n${parts.body}`,
  targets: (parts, random) =>
    parts.head.replace(
      /^(\w+) (\S+)/,
      (_, method: string, path: string) =>
        `${method} ${pick(random, [`http://evil.example${path}`, `https://evil.example${path}`, `//evil.example${path}`, `/x/..${path}`, `/guarded-prefix${path}`, path.slice(1), `\\${path}`, '*', `${path} x`, `${path}\u0000`, `${path}\t`])}`,
    ) + `${length(parts)}\r\n\r\n${parts.body}`,
  hosts: (parts, random) =>
    parts.head
      .replace(/^(\w+) /, '$1 /guarded-prefix')
      .replace(
        /Host: [^\r]*\r\n/,
        pick(random, [
          '',
          'Host: \r\n',
          'Host: a\r\nHost: b\r\n',
          'Host: a b\r\n',
          'Host: a/..\r\n',
          'Host: x@y:99999\r\n',
          'Host: a?b\r\n',
        ]),
      ) + `${length(parts)}\r\n\r\n${parts.body}`,
  'line ends first': (parts) => `\r\n\r\n${parts.head}${length(parts)}\r\n\r\n${parts.body}`,
  'not HTTP': (_, random) =>
    pick(random, [
      '\u0016\u0003\u0001\u0002\u0000\u0001',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      '*1\r\n$4\r\nPING\r\n',
      '\u0000'.repeat(100),
      'GET /livez\r\n\r\n',
      'SSH-2.0-x\r\n',
      '{"a":1}\n\n',
    ]),
  'a body on GET': ({ smuggled }) =>
    `GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
  expectations: (parts) => `${parts.head}Expect: 100-continue\r\n${length(parts)}\r\n\r\n${parts.body}`,
  'chunk extensions': framed(
    'Transfer-Encoding: chunked',
    ({ body }) => `${body.length.toString(16)};a="b"\r\n${body}\r\n0\r\n\r\n`,
  ),
  trailers: framed(
    'Transfer-Encoding: chunked',
    ({ body }) => `${chunk(body)}0\r\nContent-Length: 0\r\nX-Trailer: a\r\n\r\n`,
  ),
  'many small chunks': framed(
    'Transfer-Encoding: chunked',
    ({ body }) => `${[...body].map(chunk).join('')}0\r\n\r\n`,
  ),
}
