/** REDIS_URL in all its forms: how it is split, what is refused, and that no password is ever shown. */
import { describe, expect, test } from 'bun:test'
import { errorCode } from '../src/contracts/errors.ts'
import { addressOptions, shownAddress } from '../src/redis/address.ts'

const forms: readonly { url: string; options: object; shown?: string }[] = [
  { url: 'redis://example', options: { host: 'example', port: 6379, db: 0 } },
  {
    url: 'rediss://me:p%40ss@example:6380/3',
    options: {
      host: 'example',
      port: 6380,
      db: 3,
      username: 'me',
      password: 'p@ss',
      tls: { servername: 'example' },
    },
    shown: 'rediss://me@example:6380/3',
  },
  {
    url: 'redis://:secret@[::1]:7000',
    options: { host: '::1', port: 7000, password: 'secret' },
    shown: 'redis://[::1]:7000',
  },
  { url: 'unix:///run/redis.sock', options: { path: '/run/redis.sock' } },
  {
    url: 'redis+sentinel://a:1,b/mill',
    options: {
      sentinels: [
        { host: 'a', port: 1 },
        { host: 'b', port: 26_379 },
      ],
      name: 'mill',
      db: 0,
    },
  },
  {
    url: 'redis+sentinel://me:p%2Fs%40s@[::1]:2,10.0.0.1/my%20mill/5?sentinelUsername=s&sentinelPassword=hush%26',
    options: {
      sentinels: [
        { host: '::1', port: 2 },
        { host: '10.0.0.1', port: 26_379 },
      ],
      name: 'my mill',
      db: 5,
      username: 'me',
      password: 'p/s@s',
      sentinelUsername: 's',
      sentinelPassword: 'hush&',
    },
    shown: 'redis+sentinel://me@[::1]:2,10.0.0.1/my%20mill/5',
  },
  {
    url: 'rediss+sentinel://:pw@a/mill',
    options: {
      sentinels: [{ host: 'a', port: 26_379 }],
      password: 'pw',
      enableTLSForSentinelMode: true,
      tls: {},
    },
    shown: 'rediss+sentinel://a/mill',
  },
]

describe('an address is split and shown without passwords', () => {
  for (const { url, options, shown = url } of forms) {
    test(shown, () => {
      expect(addressOptions(url)).toMatchObject(options)
      expect(shownAddress(url)).toBe(shown)
    })
  }
})

const SECRET = 'hunter2'
const refused: readonly { name: string; url: string; says: RegExp }[] = [
  { name: 'no name of a primary', url: `redis+sentinel://:${SECRET}@a:1`, says: /<primary name>/ },
  { name: 'a Sentinel without a host', url: `redis+sentinel://:${SECRET}@a:1,:2/mill`, says: /no host:port/ },
  { name: 'a port that is none', url: `redis+sentinel://:${SECRET}@a:99999/mill`, says: /no host:port/ },
  {
    name: 'a database that is no number',
    url: `redis+sentinel://:${SECRET}@a/mill/x`,
    says: /database "x"; use a number/,
  },
  { name: 'a slash in a password', url: `redis://me:12/${SECRET}@a`, says: /names database; use a number/ },
  {
    name: 'a misspelt parameter',
    url: `redis+sentinel://a/mill?sentinelPasword=${SECRET}`,
    says: /Did you mean sentinelPassword/,
  },
  { name: 'a stray percent sign', url: `redis+sentinel://:${SECRET}%@a/mill`, says: /%25/ },
]

describe('an address that can not be used is refused without repeating it', () => {
  for (const { name, url, says } of refused) {
    test(name, () => {
      let thrown: unknown
      try {
        addressOptions(url)
      } catch (error) {
        thrown = error
      }
      expect(errorCode(thrown)).toBe('config.invalid')
      expect(String(thrown)).toMatch(says)
      expect(String(thrown)).not.toContain(SECRET)
      expect(shownAddress(url)).not.toContain(SECRET)
    })
  }
})
