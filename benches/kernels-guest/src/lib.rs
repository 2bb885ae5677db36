//! Compute kernels, each an export that takes its size and returns a checksum, so that nothing is optimised away.
//! They are ordinary Rust: nothing here knows how guests are interrupted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use sha2::{Digest as _, Sha256};

/// Numbers without pattern, the same in every run.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }
}

fn noise() -> Noise {
    Noise(black_box(0x9e37_79b9))
}

/// Multiplies two matrices of `n` by `n`, in the order of a textbook.
#[no_mangle]
pub extern "C" fn matmul(n: u32) -> u32 {
    let n = n as usize;
    let mut noise = noise();
    let mut matrix = || (0..n * n).map(|_| f64::from(noise.next() % 100)).collect::<Vec<_>>();
    let (a, b) = (matrix(), matrix());
    let mut c = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            let mut sum = 0.0;
            for k in 0..n {
                sum += a[i * n + k] * b[k * n + j];
            }
            c[i * n + j] = sum;
        }
    }
    c.iter().sum::<f64>() as u32
}

/// Counts the primes below `n`.
#[no_mangle]
pub extern "C" fn sieve(n: u32) -> u32 {
    let n = n as usize;
    let mut composite = vec![false; n];
    let mut primes = 0;
    for i in 2..n {
        if !composite[i] {
            primes += 1;
            let mut j = i * i;
            while j < n {
                composite[j] = true;
                j += i;
            }
        }
    }
    primes
}

#[inline(never)]
fn fibonacci(n: u32) -> u32 {
    if n < 2 {
        n
    } else {
        fibonacci(n - 1).wrapping_add(fibonacci(n - 2))
    }
}

/// The `n`th Fibonacci number, by recursion.
#[no_mangle]
pub extern "C" fn fib(n: u32) -> u32 {
    fibonacci(black_box(n))
}

/// SHA-256 over `n` KiB.
#[no_mangle]
pub extern "C" fn sha256(n: u32) -> u32 {
    let block = [black_box(7_u8); 1024];
    let mut hasher = Sha256::new();
    for _ in 0..n {
        hasher.update(block);
    }
    let digest = hasher.finalize();
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Sorts `n` numbers with the standard library.
#[no_mangle]
pub extern "C" fn sort(n: u32) -> u32 {
    let mut noise = noise();
    let mut numbers: Vec<u32> = (0..n).map(|_| noise.next()).collect();
    numbers.sort_unstable();
    numbers[n as usize / 2]
}

/// A little machine with unpredictable branches, `n` steps.
#[no_mangle]
pub extern "C" fn branchy(n: u32) -> u32 {
    let mut noise = noise();
    let (mut a, mut b) = (1_u32, 2_u32);
    for _ in 0..n {
        match noise.next() % 7 {
            0 => a = a.wrapping_add(b),
            1 => b ^= a,
            2 => a = a.rotate_left(3),
            3 if b % 3 == 0 => b = b.wrapping_mul(5),
            3 => b = b.wrapping_sub(a),
            4 => std::mem::swap(&mut a, &mut b),
            5 if a > b => a -= b,
            5 => b -= a,
            _ => a = !a,
        }
    }
    a ^ b
}

/// Writes a JSON document of `n` records and reads it back.
#[no_mangle]
pub extern "C" fn json(n: u32) -> u32 {
    let mut noise = noise();
    let mut text = String::from("[");
    for i in 0..n {
        let comma = if i == 0 { "" } else { "," };
        let (a, b) = (noise.next(), noise.next() % 1000);
        write!(text, "{comma}{{\"id\":{i},\"name\":\"record {a}\",\"tags\":[\"x\",\"y\\n\"],\"value\":{b}.5,\"on\":true}}")
            .expect("a string grows");
    }
    text.push(']');
    let records: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(&text).expect("what was written");
    let back = serde_json::to_string(&records).expect("what was read");
    back.len() as u32
}

trait Step {
    fn step(&self, x: u32) -> u32;
}
struct Add(u32);
struct Mix(u32);
impl Step for Add {
    fn step(&self, x: u32) -> u32 {
        x.wrapping_add(self.0)
    }
}
impl Step for Mix {
    fn step(&self, x: u32) -> u32 {
        x.rotate_left(5) ^ self.0
    }
}

#[inline(never)]
fn leaf(x: u32, y: u32) -> u32 {
    x.wrapping_mul(31).wrapping_add(y)
}

#[inline(never)]
fn middle(x: u32, y: u32) -> u32 {
    leaf(leaf(x, y), y ^ 1)
}

/// `n` rounds of small calls, direct and through a table.
#[no_mangle]
pub extern "C" fn calls(n: u32) -> u32 {
    let steps: [Box<dyn Step>; 3] = [Box::new(Add(black_box(3))), Box::new(Mix(5)), Box::new(Add(7))];
    let mut x = black_box(1);
    for i in 0..n {
        x = middle(x, i);
        x = steps[i as usize % 3].step(x);
    }
    x
}
