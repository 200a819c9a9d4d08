//! Program that names everything that only a host has. Its worker compiles nevertheless, and contains none of it.

use cloudknot::{Backend, DockerImage, Knot, Login, Pars};

/// Doubles a number.
#[cloudknot::remote]
fn double(x: u64) -> u64 {
    2 * x
}

async fn images() -> cloudknot::Result<()> {
    let mut image = DockerImage::builder("lab/whole", "worker").base_image("debian:12-slim").build().await?;
    image.tag("one")?;
    image.save("whole.tar")?;
    println!("{} {} {:?}", image.digest(), image.load().await?, image.layers());
    println!("{}", image.push("registry.example/lab/whole", &Login::stored()).await?);
    image.clobber().await?;
    println!("{:?}", double.map([1]).on(Backend::docker()).await?);
    DockerImage::builder("lab/whole", "worker").dockerfile("Dockerfile").build().await.map(drop)
}

async fn knots() -> cloudknot::Result<()> {
    let pars = Pars::builder("lab").create().await?;
    println!("{:?}", Knot::builder("lab").plan().await?);
    let knot = Knot::builder("lab").deploy().await?;
    println!("{:?}", double.map([1]).on(knot.backend().await?).await?);
    println!("{:?}", double.map([1]).on(Backend::batch()?).await?);
    println!("{}", Knot::list().await?.len());
    knot.clobber().await?;
    pars.clobber().await
}

#[cloudknot::main]
async fn main() -> cloudknot::Result<()> {
    images().await?;
    knots().await
}
