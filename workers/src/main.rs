//! worker
fn main() {
    println!("{:?} {}", tch::Tensor::from_slice(&[1f32, 2.]) * 2, tch::Cuda::is_available());
}
